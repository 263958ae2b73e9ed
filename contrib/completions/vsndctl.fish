# fish completion of vsndctl: the program itself knows what is live.
COMPLETE=fish vsndctl | source
