# bash completion of vsndctl: the program itself knows what is live.
source <(COMPLETE=bash vsndctl)
