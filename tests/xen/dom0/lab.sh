# shellcheck shell=bash
# What the cases in Dom0 are written with. Sourced by boot.sh, once in Dom0's life, and by nothing else.

console_dir=/var/log/xen/console

say() {
    echo "[$(cut -d ' ' -f 1 /proc/uptime)] $*"
}

die() {
    say "FAILED: $*"
    exit 1
}

# An input that never has anything and never ends: read -t on it is a sleep without a process, of which many would disturb the
# sound on an emulated processor.
mkfifo /run/silent
exec {silent}<>/run/silent

doze() {
    read -r -t "$1" -u "$silent" || true
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
    local ticks=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        ((ticks-- > 0)) || return 1
        doze 0.1
    done
}

# become_user COMMAND...: this shell becomes the command, run by the desktop user with the limits that a desktop gives its sound
# server. For what runs in the background: $! is then the command itself.
become_user() {
    ulimit -r 95 -e 40 -l unlimited -c 0
    exec setpriv --reuid 1000 --regid 1000 --init-groups env -i HOME=/home/ann USER=ann PATH="$PATH" LANG=C.UTF-8 \
        XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus \
        VSND_LOG="$(cat "$LAB/log-level")" "$@"
}

as_user() (
    become_user "$@"
)

# --- the sound server -------------------------------------------------------------------------------------------------------

# start_sound pipewire|pulseaudio: the user's sound server, with the sinks spk and spk2 and a microphone.
start_sound() {
    sound=$1 recorder_latency=200
    "start_$1"
}

start_pipewire() {
    become_user pipewire >>"$OUT/pipewire.log" 2>&1 &
    sound_pids=($!)
    wait_for 20 as_user pw-cli info 0 || return 1
    become_user wireplumber >>"$OUT/wireplumber.log" 2>&1 &
    sound_pids+=($!)
    become_user pipewire-pulse >>"$OUT/pipewire-pulse.log" 2>&1 &
    sound_pids+=($!)
    wait_for 20 as_user pactl info || return 1
    wait_for 20 sound_is_routed || return 1
    as_user pactl set-default-sink spk
    as_user pactl set-default-source mic
}

# WirePlumber is ready when it has exported its default-nodes and gave the sinks ports.
sound_is_routed() {
    as_user wpctl status | grep -q export && as_user pactl list short sinks | grep -q spk2
}

# The microphone is the monitor of a sink: who plays there, speaks. These sinks render ahead by what their most patient client allows
# and, other than a sound card, take nothing of it back when another comes. So nobody here is patient.
start_pulseaudio() {
    recorder_latency=100
    local null='module-null-sink rate=48000 channels=2 norewinds=1'
    become_user pulseaudio -n --daemonize=no --exit-idle-time=-1 --realtime=yes -L module-native-protocol-unix \
        -L "$null sink_name=spk" -L "$null sink_name=mic" >>"$OUT/pulseaudio.log" 2>&1 &
    sound_pids=($!)
    wait_for 20 as_user pactl info || return 1
    as_user pactl set-default-sink spk
    as_user pactl set-default-source mic.monitor
}

stop_sound() {
    pkill -u ann -x 'pipewire|wireplumber|pipewire-pulse|pulseaudio'
    wait_for 10 sound_is_gone
}

sound_is_gone() {
    ! pgrep -u ann -x 'pipewire|wireplumber|pipewire-pulse|pulseaudio' >/dev/null
}

# --- the bridge -------------------------------------------------------------------------------------------------------------

# A case may stop it and start it again: it outlives the case, and its number is found in /run/bridge.pid.
start_bridge() {
    become_user /run/vsnd-bridge run --server "$sound" --capture allow >>"$OUT/bridge.log" 2>&1 &
    bridge=$!
    disown "$bridge"
    echo "$bridge" >/run/bridge.pid
    sleep 0.5
    kill -0 "$bridge"
}

stop_bridge() {
    kill "$bridge" 2>/dev/null
    wait_for 10 bridge_is_gone
}

bridge_is_gone() {
    ! kill -0 "$bridge"
}

# vsndctl WORD...: the user controls the bridge.
vsndctl() {
    as_user /run/vsndctl "$@"
}

# holdings WHEN: what the bridge has, as lines of a name and a count among the case's results.
holdings() {
    {
        echo "mappings $(grep -c /dev/xen/gntdev "/proc/$bridge/maps")"
        echo "files $(find "/proc/$bridge/fd" -type l | wc -l)"
        echo "threads $(find "/proc/$bridge/task" -mindepth 1 -maxdepth 1 | wc -l)"
        echo "nodes $(as_user pw-dump | grep -c '"node.name": "vsnd\.')"
        echo "ports $(/usr/lib/xen-4.17/bin/lsevtchn 0 | grep -c 'Interdomain\|Waiting')"
    } >"$case_out/holdings-$1"
}

# need_sound pipewire|pulseaudio: the desktop has this server. Guests do not outlive the change.
need_sound() {
    [[ $sound != "$1" ]] || return 0
    drop_all_guests
    stop_bridge
    stop_sound
    start_sound "$1" && start_bridge
}

# --- guests -----------------------------------------------------------------------------------------------------------------

usual_vsnd="[['CARD, short-name=VM, sample-rates=44100;48000, sample-formats=s16_le, buffer-size=262144', \
'PCM, name=Main', 'STREAM, unique-id=out, type=p', 'STREAM, unique-id=in, type=c']]"

# need_guest NAME old|new [VSND [servers]]: a running guest of that name with that kernel; one that runs already serves. Its card is
# there, unless VSND is empty, which makes a guest without one. With "servers" it can run PulseAudio and PipeWire.
need_guest() {
    local name=$1 kernel=$2 vsnd=${3-$usual_vsnd} servers=${4-} memory=192 image
    xl domid "$name" >/dev/null 2>&1 && return
    image=/run/guest-$kernel$servers.img
    if [[ ! -f $image ]]; then
        # the kernel unpacks one archive after the other
        {
            cat "$LAB/guest-$kernel.img" ${servers:+"$LAB/servers.img"}
            (cd "$LAB" && find tools signals ${servers:+signals-of-servers} | cpio --quiet -o -H newc)
        } >"$image"
    fi
    [[ -z $servers ]] || memory=320
    cat >"/run/$name.cfg" <<EOF
name = "$name"
type = "pv"
kernel = "$LAB/guest-$kernel.vmlinux"
ramdisk = "$image"
extra = "console=hvc0 quiet mitigations=off"
memory = $memory
vcpus = 1
cpus = "1"
on_poweroff = "destroy"
on_crash = "destroy"
vif = ['script=$LAB/dom0/vif']
${vsnd:+vsnd = $vsnd}
EOF
    keep_console "$name"
    pkill -HUP xenconsoled # it opens its log files anew
    xl create -q "/run/$name.cfg" || { say "$name can't be created"; return 1; }
    say "$name is created"
    wait_for 60 grep -q '^@ready' "$console_dir/guest-$name.log" || { say "$name does not boot"; return 1; }
    say "$name has booted"
    [[ -z $vsnd ]] || wait_for_card "$name"
}

# reboot_guest NAME: the guest boots anew: the same guest to xl, with another number.
reboot_guest() {
    local name=$1 id
    id=$(xl domid "$name") || return 1
    keep_console "$name"
    pkill -HUP xenconsoled
    wait_for 10 test -f "$console_dir/guest-$name.log" || return 1
    gsh "$name" '(sleep 1; reboot -f) &' || return 1
    if ! wait_for 60 is_another_domain "$name" "$id" || ! wait_for 60 grep -q '^@ready' "$console_dir/guest-$name.log"; then
        say "$name does not reboot"
        return 1
    fi
    say "$name has rebooted"
    wait_for_card "$name"
}

is_another_domain() {
    local id
    id=$(xl domid "$1") && [[ $id != "$2" ]]
}

wait_for_card() {
    gsh "$1" 'i=0; until [ -e /dev/snd/controlC0 ] || [ $i = 100 ]; do i=$((i+1)); sleep 0.1; done; [ -e /dev/snd/controlC0 ]' || {
        say "$1 has no sound card"
        return 1
    }
}

# gsh NAME COMMAND: runs COMMAND in the guest's shell; prints what it prints, returns its status. Gives up after GSH_SECONDS. The
# console's log is read as it grows.
gsh() {
    local log=$console_dir/guest-$1.log id tty number line='' part running='' deadline=$((SECONDS + ${GSH_SECONDS:-60}))
    id=$(xl domid "$1") || return 1
    tty=$(xenstore-read "/local/domain/$id/console/tty") || return 1
    number=$(date +%s%N)
    exec {console}<"$log"
    printf '%s %s\n' "$number" "$2" >"$tty"
    while ((SECONDS < deadline)); do
        # at the end of what there is, read has got a part of a line or nothing
        if ! IFS= read -r -u "$console" part; then
            line+=$part
            doze 0.1
            continue
        fi
        line+=$part
        line=${line%$'\r'}
        case $line in
        "@run $number") running=1 ;;
        "@done $number "*)
            exec {console}<&-
            return "${line##* }"
            ;;
        *) [[ -z $running ]] || printf '%s\n' "$line" ;;
        esac
        line=''
    done
    exec {console}<&-
    say "$1 does not come to an end with: $2"
    return 1
}

# pull NAME FILE TO: copies a file out of the guest, by the network: xenconsoled lets 150 messages a second pass.
pull() {
    local id listener
    id=$(xl domid "$1") || return 1
    # nc hangs up at the end of its input
    busybox nc -l -p 7777 <&"$silent" >"$3" &
    listener=$!
    gsh "$1" "ifconfig eth0 10.77.$id.2 netmask 255.255.255.0 up && nc 10.77.$id.1 7777 <$2" && wait "$listener"
    kill "$listener" 2>/dev/null
    [[ $(gsh "$1" "md5sum <$2" | head -n 1) == "$(md5sum <"$3")" ]] || { say "$2 of $1 did not arrive whole"; return 1; }
}

keep_console() {
    local log=$console_dir/guest-$1.log
    [[ -f $log ]] || return 0
    cat "$log" >>"$OUT/consoles/$1.log"
    rm "$log"
}

drop_guest() {
    xl destroy "$1" 2>/dev/null
    keep_console "$1"
}

drop_all_guests() {
    local guest
    for guest in $(xl list | awk 'NR > 1 && $1 != "Domain-0" { print $1 }'); do
        drop_guest "$guest"
    done
}

# --- recordings and plays ---------------------------------------------------------------------------------------------------

# record_sink SINK NAME [RATE]: records what SINK plays from now on, to NAME.raw among the case's results; stop_recording ends it.
record_sink() {
    recorded+=("$2")
    become_user parec -d "$1.monitor" --latency-msec="$recorder_latency" --format=s16le --rate="${3:-48000}" --channels=2 --raw >"/run/rec/$2.raw" 2>>"$case_out/parec.log" &
    recorders+=($!)
    wait_for 10 test -s "/run/rec/$2.raw" || { say "$1 can't be recorded"; return 1; }
}

stop_recording() {
    local name
    doze 1.5 # what parec has not yet written
    kill "${recorders[@]}"
    wait "${recorders[@]}"
    for name in "${recorded[@]}"; do
        mv "/run/rec/$name.raw" "$case_out/$name.raw"
    done
    recorders=() recorded=()
}

# play GUEST SIGNAL PERIOD BUFFER [TAG]: the guest plays a signal; what aplay said lands in aplay-TAG.log.
play() {
    local log=$case_out/aplay-${5:-$2}.log
    gsh "$1" "aplay -v -D hw:0,0 --period-size=$3 --buffer-size=$4 /signals/$2.wav" >"$log" 2>&1
    local status=$?
    # aplay takes the next best size without a word
    grep -q "^  buffer_size *: $4$" "$log" && grep -q "^  period_size *: $3$" "$log" || status=1
    say "$1 plays $2 with $3/$4: $status, $(grep -c underrun "$log") underruns"
    echo "status $status" >>"$log"
    return "$status"
}

# begin_play GUEST SIGNAL PERIOD BUFFER: the guest plays a signal in the background, as its job $player. end_play GUEST SIGNAL: waits
# for it; what aplay said lands in aplay-SIGNAL.log.
begin_play() {
    gsh "$1" "aplay -v -D hw:0,0 --period-size=$3 --buffer-size=$4 /signals/$2.wav 2>/tmp/aplay.log & player=\$!"
}

end_play() {
    local status=0
    gsh "$1" 'wait $player' || status=1
    gsh "$1" 'cat /tmp/aplay.log' >"$case_out/aplay-$2.log"
    return "$status"
}

# step_through GUEST SIGNAL RATE STEP...: the guest's player of many steps (guest/pcm.c) plays a signal; what it said lands in
# pcm-SIGNAL.log.
step_through() {
    local name=$1 signal=$2 status
    shift 2
    gsh "$name" "/tools/pcm $1 /signals/$signal.wav ${*:2}" >"$case_out/pcm-$signal.log" 2>&1
    status=$?
    say "$name plays $signal with ${*:2}: $status"
    return "$status"
}

# note_driver GUEST: from now on the guest's kernel notes what its sound driver does; pull_notes GUEST takes the notes to
# `notes` among the case's results.
note_driver() {
    gsh "$1" '/tools/notes begin'
}

pull_notes() {
    gsh "$1" '/tools/notes end /tmp/notes' && pull "$1" /tmp/notes "$case_out/notes"
}

# speak SIGNAL: the microphone gives this signal from now on; hush ends it.
speak() {
    "speak_$sound" "$LAB/signals-of-host/$1.wav" || { say "the microphone takes nothing"; return 1; }
}

speak_pipewire() {
    become_user pw-cat -p -P '{ node.autoconnect = false node.name = speaker }' "$1" 2>>"$case_out/speaker.log" &
    speaker=$!
    wait_for 10 as_user pw-link speaker:output_FL mic:input_FL && as_user pw-link speaker:output_FR mic:input_FR
}

speak_pulseaudio() {
    become_user paplay --latency-msec=100 -d mic "$1" 2>>"$case_out/speaker.log" &
    speaker=$!
    wait_for 10 eval 'as_user pactl list short sinks | grep "mic.*RUNNING"'
}

hush() {
    kill "$speaker"
    wait "$speaker"
}

# --- results ----------------------------------------------------------------------------------------------------------------

# deliver DIRECTORY: what lies there among the results, and all logs, go to the machine that runs the lab. Not before a case is
# over: what waits for that machine waits by another clock than Dom0's.
deliver() {
    cp -r "$OUT/$1" "$OUT"/*.log /out/
}

# --- cases ------------------------------------------------------------------------------------------------------------------

# run_case NAME: a case's name is its script's name, with -old or -new for the guest's kernel ($kernel, $guest) where it matters. The
# one that is called pulseaudio has that on the desktop, all others PipeWire.
run_case() {
    local case=$1 status
    say "case $case"
    echo "--- $case" >>"$OUT/bridge.log"
    mkdir -p "$OUT/$case"
    case $case in pulseaudio) need_sound pulseaudio ;; *) need_sound pipewire ;; esac || say "no sound server for $case"
    (
        case_out=$OUT/$case script=$case kernel=new recorders=() recorded=()
        case $case in *-old | *-new) kernel=${case##*-} script=${case%-*} ;; esac
        guest=lab-$kernel
        exec >"$case_out/log" 2>&1
        trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
        # shellcheck source=/dev/null
        . "$LAB/cases/$script.sh"
    )
    status=$?
    bridge=$(</run/bridge.pid)
    kill -0 "$bridge" 2>/dev/null || { say "the bridge is gone"; status=99; start_bridge; }
    echo "$status" >"$OUT/$case/status"
    say "case $case: $status"
    # what a failed case leaves behind shall not fail the next
    ((status == 0)) || drop_all_guests
    return "$status"
}
