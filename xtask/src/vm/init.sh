#!/bin/busybox sh
# First process of the machine of `cargo xtask vm`.
/bin/busybox mkdir -p /bb /proc /sys /dev /tmp /run /var/lib /root
/bin/busybox --install -s /bb
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/bb HOME=/root
mount -t proc none /proc
mount -t sysfs none /sys
mount -t securityfs none /sys/kernel/security
mount -t devtmpfs none /dev
mount -t tmpfs none /run
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /dev/shm
mount -t tmpfs none /dev/shm
ip link set lo up
while read -r module; do
    modprobe "$module" || echo "no module $module"
done </modules
ulimit -n 20000
export RINGFENCE_BIN_DIR=/programs RINGFENCE_PATIENCE=240 RINGFENCE_SKIP_LOG=/tmp/skips RUST_BACKTRACE=0
: >"$RINGFENCE_SKIP_LOG"
cd "@ROOT@/tests"
echo "Linux $(uname -r), security modules $(cat /sys/kernel/security/lsm)"
passed=0
failed=0
for suite in @SUITES@; do
    "/programs/deps/$suite" --test-threads=1 --color=never @SKIPPED@ @WANTED@ >/tmp/output 2>&1
    status=$?
    grep -Ev '^(running 0 tests|$)' /tmp/output
    counts=$(sed -n 's/^test result: [a-zA-Z]*\. \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' /tmp/output)
    set -- $counts
    passed=$((passed + ${1:-0}))
    failed=$((failed + ${2:-0}))
    [ "$status" -eq 0 ] || [ "${2:-0}" -gt 0 ] || { echo "$suite ended with $status"; failed=$((failed + 1)); }
done
sed 's/^/skipped: /' "$RINGFENCE_SKIP_LOG"
# The harness counts a test that skips itself as passed.
skipped=$(wc -l <"$RINGFENCE_SKIP_LOG")
ran=$((passed - skipped))
echo "$ran passed, $failed failed, $skipped skipped themselves"
if [ "$failed" -gt 0 ]; then
    echo "@END@$failed tests failed"
elif [ "$ran" -gt 0 ]; then
    echo "@END@passed"
else
    echo "@END@no test ran: no name matches, or each that does skips itself"
fi
poweroff -f
