#!/usr/bin/env bash
# Builds the real-Xen lab in target/xenlab: the Xen hypervisor, a Dom0 with PipeWire, and two Linux guests whose kernels carry the
# real sound frontend, one old and one new (they differ in what they take for a valid event). All of it comes from Debian's
# packages; none is installed, nothing outside target/ is written and no root is needed.
#
# What it leaves in target/xenlab/parts:
#   xen.elf             the hypervisor
#   dom0.vmlinux, .img  Dom0
#   guest-old.*, guest-new.*   the guests: .vmlinux, .img and .version
#   servers.img         what a guest with sound servers of its own has besides
#
# A second run costs nothing: it compares the stamp of these scripts and is done. --refresh asks the mirrors for newer packages.
set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lab=${XENLAB_DIR:-$here/../../target/xenlab}
mkdir -p "$lab"
lab=$(cd "$lab" && pwd)
work=$lab/work parts=$lab/parts
xen_version=4.17

die() {
    echo "xenlab: $*" >&2
    exit 1
}
# shellcheck source=tests/xen/apt.sh
. "$here/apt.sh"

stamp() {
    (cd "$here" && cat build.sh apt.sh dom0/init guest/init) | sha256sum | cut -d ' ' -f 1
}
if [[ ${1:-} != --refresh && -f $parts/stamp && $(cat "$parts/stamp") == "$(stamp)" ]]; then
    exit 0
fi
for tool in cpio depmod modprobe xz zstd apt-get dpkg-deb; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || die "$tool is missing: make deps installs what tests/xen/packages lists"
done
PATH=$PATH:/usr/sbin:/sbin
started=$SECONDS

say() {
    echo "xenlab: $* (after $((SECONDS - started)) s)" >&2
}

# unpack DIR DEBS: the files of these packages, one path on a line, without running anything of theirs, and without what nobody
# reads in a lab.
unpack() {
    local dir=$1 debs=$2 part
    mkdir -p "$dir"/usr/{bin,sbin,lib,lib64}
    for part in bin sbin lib lib64; do
        [[ -e $dir/$part ]] || ln -s "usr/$part" "$dir/$part"
    done
    DIR=$dir xargs -d '\n' -P 2 -I '{}' sh -c '
        dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$DIR" \
            --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale --exclude=./usr/share/i18n \
            --exclude=./usr/share/info --exclude=./usr/share/lintian --exclude=./usr/share/bug --exclude=./usr/share/sounds' - '{}' <<<"$debs"
}

# pack DIR IMAGE: DIR as a ramdisk whose files belong to root. Not compressed: an emulated processor unpacks slowly, and copying a
# hundred megabytes costs it less.
pack() {
    (cd "$1" && find . -print0 | cpio --null --quiet -o -H newc -R 0:0) >"$2.tmp"
    mv "$2.tmp" "$2"
}

# add_modules KERNEL_TREE DIR MODULE...: copies these modules and all that they need to DIR/modules, under names that sort in the
# order of loading.
add_modules() {
    local tree=$1 dir=$2/modules version number=100 file
    shift 2
    version=$(basename "$tree"/usr/lib/modules/*)
    mkdir -p "$dir"
    for module; do
        modprobe -d "$tree" -S "$version" --show-depends "$module" || die "kernel $version has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
        number=$((number + 1))
        case $file in
        *.xz) xz -dc "$file" >"$dir/$number-$(basename "$file" .xz)" ;;
        *) cp "$file" "$dir/$number-$(basename "$file")" ;;
        esac
    done
}

hypervisor() {
    local debs
    debs=$(fetch stable "xen-hypervisor-$xen_version-amd64")
    unpack "$work/xen" "$debs"
    # QEMU boots the multiboot ELF inside the compressed file.
    gunzip -c "$work/xen/boot/xen-$xen_version-amd64.gz" >"$parts/xen.elf"
    say "hypervisor"
}

# The kernel of Debian 12: Dom0's, and the old guest's.
kernel_old() {
    local package debs
    package=$(needed_by stable linux-image-amd64 '^linux-image-[0-9]')
    debs=$(fetch stable "$package")
    unpack "$work/old" "$debs"
    finish_kernel old
}

# The newest kernel that Debian has. Since 2026 it comes in two packages, which the one of old only depends on.
kernel_new() {
    local image needed packages debs
    image=$(needed_by newest linux-image-amd64 '^linux-image-[0-9]')
    needed=$(in_scope newest apt-cache depends --no-recommends --no-suggests "$image")
    mapfile -t packages < <(grep -o 'linux-\(binary\|modules\)-[^ ]*' <<<"$needed")
    ((${#packages[@]})) || packages=("$image")
    debs=$(fetch newest "${packages[@]}")
    unpack "$work/new" "$debs"
    finish_kernel new
}

# number_at FILE OFFSET SIZE
number_at() {
    od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

# The kernel inside the compressed image $1. Xen and xl would unpack it themselves, on the emulated processor, for seconds each time.
vmlinux_of() {
    local image=$1 begin length kind
    # The x86 boot protocol: setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c; the payload's last four
    # octets are its unpacked size.
    begin=$((($(number_at "$image" $((0x1f1)) 1) + 1) * 512 + $(number_at "$image" $((0x248)) 4)))
    length=$(($(number_at "$image" $((0x24c)) 4) - 4))
    kind=$(number_at "$image" "$begin" 2)
    head -c "$((begin + length))" "$image" | tail -c "$length" | case $kind in
    $((0x37fd))) xz -dc ;;
    $((0xb528))) zstd -dcq ;;
    $((0x8b1f))) gzip -dc ;;
    *) die "$image is compressed in a way that is not known here" ;;
    esac
}

finish_kernel() {
    local tree=$work/$1 version
    [[ -d $tree/usr/lib/modules ]] || die "no modules in the $1 kernel's package"
    version=$(basename "$tree"/usr/lib/modules/*)
    # it misses files that only initramfs-tools wants
    depmod -b "$tree" "$version" 2>"$work/depmod.log" || die "depmod: $(cat "$work/depmod.log")"
    vmlinux_of "$(find "$tree" -name "vmlinuz*" -print -quit)" >"$parts/guest-$1.vmlinux"
    echo "$version" >"$parts/guest-$1.version"
    say "kernel $version"
}

# What Dom0 runs, and of all that comes with it, what it does not need: mostly video codecs and drawing behind plugins.
dom0_packages=(base-files dash bash coreutils mount util-linux procps findutils grep sed gawk kmod cpio dbus udev
    "xen-utils-$xen_version" xenstore-utils alsa-utils
    pipewire pipewire-bin pipewire-pulse wireplumber libspa-0.2-modules pulseaudio pulseaudio-utils systemd)
dom0_without='^(lib)?(python3|perl|av(codec|util)|swresample|aom|x26[45]|svtav1|rav1e|dav1d|vpx|codec2|hwy|jxl|webp|mfx|va|vdpau|xvid'
dom0_without+='|zvbi|theora|shine|twolame|gsm|openjp2|icu|xml2|rsvg|cairo|pango|harfbuzz|gdk|thai|datrie|tiff|deflate|jbig|lerc|jpeg|drm'
dom0_without+='|fontconfig|freetype|png|pixman|brotli|graphite|fribidi|asound2-plugins|snappy|ocl-icd|fonts-|iso-codes|shared-mime|x11-data'
dom0_without+='|x11-common|debconf|ucf|adduser|usrmerge|dpkg|gcc-12-base|sensible-utils|media-types)'

dom0() {
    local debs
    debs=$(fetch stable busybox-static)
    unpack "$work/busybox" "$debs"
    fetch_all dom0 "${dom0_packages[@]}"
    debs=$(find "$lab/debs/dom0" -name '*.deb' -printf '%f\n' | grep -Ev "$dom0_without" | sed "s|^|$lab/debs/dom0/|")
    unpack "$work/dom0" "$debs"
    rm -rf "$work/dom0"/usr/lib/x86_64-linux-gnu/{gconv,dri} "$work/dom0"/usr/lib/xen-$xen_version/boot
    # what the packages' own scripts would have linked
    rm -rf "$work/dom0"/var/{run,lock}
    ln -s gawk "$work/dom0/usr/bin/awk"
    ln -s /run "$work/dom0/var/run"
    ln -s /run/lock "$work/dom0/var/lock"
    add_modules "$work/old" "$work/dom0" xen-gntdev xen-evtchn xen-privcmd xen-gntalloc xenfs \
        virtio_pci 9pnet_virtio 9p xen-netback
    cp "$work/busybox/bin/busybox" "$work/dom0/usr/bin/"
    install -m 755 "$here/dom0/init" "$work/dom0/init"
    pack "$work/dom0" "$parts/dom0.img"
    cp "$parts/guest-old.vmlinux" "$parts/dom0.vmlinux"
    say "Dom0: $(du -h "$parts/dom0.img" | cut -f 1)"
}

# The guests: a shell, ALSA's programs and the frontend; event channels and grants for a process that does without it (hostile/).
guest() {
    local kernel=$1 root=$work/guest-$1 program library
    rm -rf "$root"
    mkdir -p "$root"/{bin,proc,sys,dev,tmp,run,lib64,usr/bin,usr/lib/x86_64-linux-gnu,usr/share,lib}
    ln -s ../usr/lib/x86_64-linux-gnu "$root/lib/x86_64-linux-gnu"
    cp "$work/busybox/bin/busybox" "$root/bin/"
    ln -s busybox "$root/bin/sh"
    for program in aplay amixer; do
        cp "$work/dom0/usr/bin/$program" "$root/usr/bin/"
    done
    ln -s aplay "$root/usr/bin/arecord"
    for library in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libasound.so.2 libtinfo.so.6 libpthread.so.0 libdl.so.2 librt.so.1; do
        cp -L "$work/dom0/usr/lib/x86_64-linux-gnu/$library" "$root/usr/lib/x86_64-linux-gnu/"
    done
    ln -s ../usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$root/lib64/"
    cp -r "$work/dom0/usr/share/alsa" "$root/usr/share/"
    add_modules "$work/$kernel" "$root" snd_xen_front xen-netfront xen-evtchn xen-gntalloc
    install -m 755 "$here/guest/init" "$root/init"
    pack "$root" "$parts/guest-$kernel.img"
    say "guest with kernel $(cat "$parts/guest-$kernel.version"): $(du -h "$parts/guest-$kernel.img" | cut -f 1)"
}

# What a guest has besides that runs sound servers of its own: PulseAudio and PipeWire as in Dom0, and the libraries that they need.
servers() {
    local root=$work/servers from=$work/dom0 lib=usr/lib/x86_64-linux-gnu modules file files libraries
    modules=$(cd "$from" && echo usr/lib/pulse-*/modules)
    mapfile -t files < <(
        cd "$from"
        printf '%s\n' usr/bin/{pulseaudio,pacat,pactl,pipewire,pw-cat,pw-link} \
            "$modules"/{module-alsa-sink,module-native-protocol-unix,module-suspend-on-idle,libprotocol-native}.so \
            $lib/pipewire-0.3/libpipewire-module-{access,adapter,client-device,client-node,link-factory,metadata,protocol-native,rt}.so \
            $lib/pipewire-0.3/libpipewire-module-{session-manager,spa-node-factory}.so \
            $lib/spa-0.2/{alsa/libspa-alsa,audioconvert/libspa-audioconvert,audiomixer/libspa-audiomixer,support/libspa-support}.so
    )
    mapfile -t libraries < <(
        for file in "${files[@]}"; do
            "$from/$lib/ld-linux-x86-64.so.2" --library-path "$from/$lib:$from/$lib/pulseaudio:$from/$modules" --list "$from/$file"
        done | awk -v from="$from/" 'index($3, from) == 1 && !seen[$3]++ { print substr($3, length(from) + 1) }'
    )
    mkdir -p "$root"
    (cd "$from" && cp -L --parents "${files[@]}" "${libraries[@]}" usr/share/pipewire/client{,-rt}.conf "$root")
    ln -s pacat "$root/usr/bin/paplay"
    pack "$root" "$parts/servers.img"
    say "a guest's own servers: $(du -h "$parts/servers.img" | cut -f 1)"
}

# What the lab is made of, for reports.
versions() {
    local package
    echo "kernels $(cat "$parts/guest-old.version") and $(cat "$parts/guest-new.version")"
    for package in "xen-utils-$xen_version" pipewire wireplumber alsa-utils; do
        basename "$lab/debs/dom0/${package}"_*.deb | awk -F _ '{ print $1, $2 }'
    done
}

rm -rf "$work" "$parts"
mkdir -p "$work" "$parts"
rm -f "$lab"/debs/{stable,newest}/*.deb
open_scope stable bookworm bookworm-updates bookworm-security
open_scope dom0 bookworm bookworm-updates bookworm-security
open_scope newest sid
in_scope dom0 apt-get -qq autoclean
say "package lists"
hypervisor
kernel_old
kernel_new
dom0
guest old
guest new
servers
versions >"$parts/versions"
rm -rf "$work"
stamp >"$parts/stamp"
say "the lab is built"
