# shellcheck shell=bash
# A private apt beside the machine's own: same mirrors, same keys, but lists, archives and a list of installed packages of its own.
# So suites can be read that the machine does not use, and nothing that is installed here changes what gets downloaded.
# Sourced by build.sh, which sets $lab and die().

# The address of the mirror for suite $1, as this machine's own apt has it.
mirror_of() {
    apt-get indextargets --format "\$(CODENAME) \$(REPO_URI) \$(COMPONENT)" 'Created-By: Packages' |
        awk -v suite="$1" '$1 == suite && $3 == "main" && !done { print $2; done = 1 }'
}

# in_scope NAME COMMAND ARG...: an apt command inside a scope.
in_scope() {
    local scope=$lab/apt/$1 archives=$lab/debs/$1 command=$2
    shift 2
    "$command" \
        -o Dir::Etc::sourcelist="$scope/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State="$scope/state" -o Dir::State::status="$scope/status" \
        -o Dir::Cache="$scope/cache" -o Dir::Cache::archives="$archives" \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Languages=none \
        -o Acquire::Retries=3 -o APT::Architecture=amd64 -o APT::Sandbox::User=root -o APT::Keep-Downloaded-Packages=true \
        "$@"
}

# open_scope NAME SUITE...: makes a scope that knows these suites. One that the machine itself does not use is looked for where
# bookworm is: a mirror carries all suites of an archive side by side.
open_scope() {
    local name=$1 scope=$lab/apt/$1 base suite uri
    shift
    mkdir -p "$scope/state/lists/partial" "$scope/cache" "$lab/debs/$name/partial"
    : >"$scope/status"
    : >"$scope/sources.list"
    base=$(mirror_of bookworm)
    [[ -n $base ]] || die "apt knows no mirror of bookworm: is this Debian 12, and has apt-get update run?"
    for suite; do
        uri=$(mirror_of "$suite")
        if [[ -z $uri && $suite == *-security ]]; then
            echo "no mirror of $suite known here: going on without it" >&2
            continue
        fi
        echo "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${uri:-$base} $suite main" >>"$scope/sources.list"
    done
    in_scope "$name" apt-get -qq update || die "cannot read the package lists of $*"
}

# fetch SCOPE PACKAGE...: downloads these packages alone, without what they depend on; prints where they are.
fetch() {
    local scope=$1 package
    shift
    (cd "$lab/debs/$scope" && in_scope "$scope" apt-get -qq download "$@" >&2) || die "cannot download $*"
    for package; do
        echo "$lab/debs/$scope/${package}"_*.deb
    done
}

# fetch_all SCOPE PACKAGE...: downloads these packages and everything that they need.
fetch_all() {
    local scope=$1
    shift
    in_scope "$scope" apt-get -qq -y --no-install-recommends --download-only install "$@" >/dev/null || die "cannot download $*"
}

# needed_by SCOPE PACKAGE PATTERN: the package matching PATTERN that PACKAGE depends on.
needed_by() {
    in_scope "$1" apt-cache depends --no-recommends --no-suggests "$2" | awk -v pattern="$3" '
        $1 == "Depends:" && $2 ~ pattern && !done { print $2; done = 1 }' | grep . || die "$2 needs nothing like $3"
}
