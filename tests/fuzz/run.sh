#!/bin/bash
# The fuzz targets under libFuzzer, guided by coverage: one after the other, and over again until it is stopped.
#   run.sh [--seconds N] [--rounds N] [TARGET...]    so long each (60), so many rounds (without end)
#   run.sh --minimise [TARGET...]                    keeps the fewest inputs that cover all that was found
# What is found lies in target/fuzz; inputs that cover something new are kept there, too, and in tests/fuzz/corpus once
# they are minimised. A failed input is tried again by target/fuzz/run TARGET FILE.
set -eu
cd "$(dirname "$0")/../.."

seconds=60 rounds=0 minimise=
targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --minimise) minimise=1; shift ;;
    -*) echo "run.sh: no option $1" >&2; exit 2 ;;
    *) targets+=("$1"); shift ;;
    esac
done
if [ ${#targets[@]} -eq 0 ]; then
    for directory in tests/fuzz/corpus/*/; do targets+=("$(basename "$directory")"); done
fi

# LLVM's own coverage, of which libFuzzer is the reader: plain options of a stable compiler. The target is named so
# that build scripts and macros stay as they are.
triple=$(rustc -vV | sed -n 's/^host: //p')
coverage=(-Cpasses=sancov-module)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
done
RUSTFLAGS="${coverage[*]}" ${CARGO:-cargo} build --locked --quiet --profile fuzz --target "$triple" --target-dir target/fuzz \
    -p vsnd-fuzz --features libfuzzer
program=$PWD/target/fuzz/$triple/fuzz/fuzz
# shellcheck disable=SC2016 # for the script that is written
printf '#!/bin/sh\n# TARGET FILE: one input again\nVSND_FUZZ_TARGET=$1 exec %s "$2"\n' "$program" > target/fuzz/run
chmod +x target/fuzz/run

total=0
for ((round = 1; rounds == 0 || round <= rounds; round++)); do
    for name in "${targets[@]}"; do
        kept=tests/fuzz/corpus/$name found=target/fuzz/corpus/$name log=target/fuzz/$name.log
        mkdir -p "$kept" "$found"
        if [ -n "$minimise" ]; then
            small=$(mktemp -d target/fuzz/minimal.XXXXXX)
            VSND_FUZZ_TARGET=$name "$program" -set_cover_merge=1 -use_counters=0 "$small" "$kept" "$found" > "$log" 2>&1
            rm -f "$kept"/*
            mv "$small"/* "$kept"
            rmdir "$small"
            echo "$name: $(find "$kept" -type f | wc -l) inputs kept"
            continue
        fi
        if ! VSND_FUZZ_TARGET=$name "$program" -max_total_time="$seconds" -max_len=1024 -print_final_stats=1 \
            -artifact_prefix="target/fuzz/failed-$name-" "$found" "$kept" > "$log" 2>&1; then
            tail -n 40 "$log" >&2
            echo "$name: FAILED after $total executions of all targets; the whole of it is in $log" >&2
            exit 1
        fi
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        total=$((total + runs))
        echo "$name: $runs executions in $seconds s; $total in all"
    done
    [ -z "$minimise" ] || break
done
