#!/bin/sh
# Shows that these tests find mistakes: makes each planted mistake of the machine in turn and runs the golden
# scripts and the model with it. Prints which of them failed, the model after how many good histories, and
# ends with a failure where a mistake went unnoticed, or where the tests fail without one.
#
#   node/machine/tests/planted.sh [NAME…]
set -u
cd "$(dirname "$0")/../../.." || exit 1
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/planted" RUSTFLAGS="--cfg wardlock_planted"
export PROPTEST_CASES="${PROPTEST_CASES:-60}" PROPTEST_MAX_SHRINK_ITERS="${PROPTEST_MAX_SHRINK_ITERS:-0}"
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT
cargo test -q -p wardlock-machine --test model --test scripts --no-run || exit 1

layer() {
    WARDLOCK_PLANT=$1 cargo test -q -p wardlock-machine --test "$2" -- "$3" >"$out" 2>&1
}

layer none scripts every_script && layer none model the_machine || { cat "$out"; exit 1; }
all=$(cat node/machine/src/*.rs node/machine/src/machine/*.rs | grep -o 'planted!("[a-z-]*")' | cut -d'"' -f2 | grep -vx name | sort -u)
missed=0
count=0
printf '%-36s %-8s %s\n' mistake scripts 'model, after good histories'
for name in ${@:-$all}; do
    if layer "$name" scripts every_script; then scripts=-; else scripts=fails; fi
    if layer "$name" model the_machine; then
        model=-
    else
        model=$(sed -n 's/^.*successes: \([0-9]*\).*$/\1/p' "$out" | head -1)
    fi
    printf '%-36s %-8s %s\n' "$name" "$scripts" "${model:-?}"
    count=$((count + 1))
    [ "$scripts$model" = -- ] && missed=$((missed + 1))
done
echo "$count mistakes, $missed unnoticed"
[ "$missed" -eq 0 ] && [ "$count" -gt 0 ]
