#!/usr/bin/env bash
# run.sh NAME CASE...|all: boots the lab under QEMU, runs these cases in Dom0 and leaves what they recorded in
# target/xenlab/runs/NAME/out. Says nothing about whether it is what should have been heard: that is main.rs's part.
#
# VSND_LOG     what the daemon logs (default: info)
# VSND_BRIDGE  the daemon to put into Dom0, with the vsndctl beside it (default: target/release/vsnd-bridge)
# VSND_HOSTILE the program of the guest that keeps to no rule (default: target/release/vsnd-hostile)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$here/../../target
lab=$(realpath -m "${XENLAB_DIR:-$target/xenlab}")
parts=$lab/parts
(($# >= 2)) || { sed -n '2,7s/^# //p' "$0"; exit 2; }
run=$lab/runs/$1
shift
cases=("$@")
if [[ ${cases[0]} == all ]]; then
    cases=()
    for script in "$here"/cases/*.sh; do
        case=$(basename "$script" .sh)
        # those that speak of the guest's kernel run with both
        if grep -q '\$kernel' "$script"; then
            cases+=("$case-old" "$case-new")
        else
            cases+=("$case")
        fi
    done
fi

[[ -d $lab/signals ]] || { echo "run.sh: no signals yet: main.rs writes them, cargo test --test xen starts it" >&2; exit 1; }
rm -rf "$run"
mkdir -p "$run"/{out,lab/tools}
in_dom0=$run/lab
cp -r "$here/dom0" "$here/cases" "$here"/../../contrib/{udev,systemd} "$in_dom0/"
cp -rl "$lab"/signals{,-of-host,-of-servers} "$in_dom0/"
cp "$here/guest"/{notes,servers,pipewire.conf} "$in_dom0/tools/"
cc -static -O2 -Wall -Wextra -Werror -o "$in_dom0/tools/pcm" "$here/guest/pcm.c"
cp "${VSND_HOSTILE:-$target/release/vsnd-hostile}" "$in_dom0/tools/hostile"
bridge=${VSND_BRIDGE:-$target/release/vsnd-bridge}
cp "$bridge" "$in_dom0/vsnd-bridge"
cp "${bridge%/*}/vsndctl" "$in_dom0/"
for part in guest-old.vmlinux guest-new.vmlinux guest-old.img guest-new.img servers.img; do
    ln "$parts/$part" "$in_dom0/$part"
done
printf '%s\n' "${cases[@]}" >"$in_dom0/cases.list"
echo "${VSND_LOG:-info}" >"$in_dom0/log-level"
# the kernel unpacks one archive after the other
{
    cat "$parts/dom0.img"
    (cd "$run" && find lab | cpio --quiet -o -H newc -R 0:0)
} >"$run/dom0.img"
rm -r "$in_dom0"

# TCG, QEMU's processor in software, is everywhere; KVM is not, and not every one of them runs a hypervisor.
# The machine's time is what its processors have done: -icount gives each instruction a nanosecond, and time in which none has
# anything to do is skipped. So neither a slow machine nor a busy one costs a guest a frame, and what is lost the bridge lost. Nothing
# that answers by another clock may be waited for while sound plays: all that Dom0 reads is in its memory.
# Xen without SMAP and SMEP: with them a PV Dom0 dies at its first exception under TCG.
# Dom0 has one processor to itself and a kernel that may be preempted, as a machine for sound would have; the guests share the
# other (need_guest in dom0/lab.sh).
exec timeout -k 10 "${XENLAB_SECONDS:-2400}" qemu-system-x86_64 -accel tcg,thread=single -icount shift=0,sleep=off -cpu max -m 4500 -smp 2 \
    -nographic -monitor none -no-reboot -net none -serial "file:$run/out/xen.log" \
    -kernel "$parts/xen.elf" \
    -append "console=com1 com1=115200,8n1 dom0_mem=2800M dom0_max_vcpus=1 dom0_vcpus_pin loglvl=warning guest_loglvl=warning smap=0 smep=0" \
    -initrd "$parts/dom0.vmlinux console=hvc0 panic=-1 mitigations=off preempt=full quiet,$run/dom0.img" \
    -virtfs "local,path=$run/out,mount_tag=out,security_model=none" </dev/null
