#!/usr/bin/env bats
# shellcheck disable=SC2016 # the stubs expand what stands in quotes
# What gpu-worker-ctl asks of systemd; the real units are tried by `make test-system`.

bats_require_minimum_version 1.5.0

setup() {
    tool=$BATS_TEST_DIRNAME/../../deploy/worker/gpu-worker-ctl
    export PATH=$BATS_TEST_TMPDIR/bin:$PATH SYSTEMD_DIR=$BATS_TEST_TMPDIR/units
    mkdir -p "$BATS_TEST_TMPDIR/bin"
    calls=$BATS_TEST_TMPDIR/calls
    : >"$calls"
    stub systemctl 'case $1 in
        list-units) echo "gpu-worker@3.service loaded active running"; echo "gpu-worker@10.service loaded failed failed" ;;
        list-unit-files) echo "gpu-worker@3.service enabled" ;;
        show) printf "NRestarts=2\nMainPID=77\nExecMainStatus=78\nActiveState=%s\nMemoryCurrent=3145728\nStatusText=a \"b\"\n" "${STATE-active}" ;;
        esac'
    stub gpucache-ctl
    stub journalctl
    stub gpu-worker 'case $* in
        *--print-device-policy*) echo "[Service]"; echo "DevicePolicy=closed"; echo "DeviceAllow=/dev/dri/renderD128 rw" ;;
        *) echo "{\"cards\":[{\"gpu_id\":0},{\"gpu_id\":1}]}" ;;
        esac'
}

stub() {
    printf '#!/bin/bash\necho "%s $*" >>"%s/calls"\n%s\n' "$1" "$BATS_TEST_TMPDIR" "${2-}" >"$BATS_TEST_TMPDIR/bin/$1"
    chmod +x "$BATS_TEST_TMPDIR/bin/$1"
}

need_root() { [ "$(id -u)" -eq 0 ] || skip "needs root"; }

@test "help tells every command, wrong command lines end with 64" {
    run "$tool" --help
    [ "$status" -eq 0 ]
    for word in enable disable restart status logs stop-all; do [[ $output == *"  $word "* ]]; done
    for arguments in "" "fly" "status --fast" "status x" "status 1024" "restart 01"; do
        # shellcheck disable=SC2086 # words are meant
        run "$tool" $arguments
        [ "$status" -eq 64 ]
    done
}

@test "enable walls every card that gpu-worker finds, starts the caches, then the workers" {
    need_root
    run "$tool" enable
    [ "$status" -eq 0 ]
    for number in 0 1; do
        grep -q '^DeviceAllow=/dev/dri/renderD128 rw$' "$SYSTEMD_DIR/gpu-worker@$number.service.d/10-device.conf"
    done
    run grep -nE 'daemon-reload|gpucache-ctl enable 0 1|enable --now gpu-worker@0 gpu-worker@1' "$calls"
    [ "${#lines[@]}" -eq 3 ]
    [[ ${lines[0]} == *daemon-reload* && ${lines[2]} == *"enable --now"* ]]
}

@test "a card that gpu-worker refuses changes nothing" {
    need_root
    stub gpu-worker 'echo "there is no card 9" >&2; exit 78'
    run "$tool" enable 9
    [ "$status" -eq 78 ]
    [ ! -e "$SYSTEMD_DIR" ]
    run ! grep -q systemctl "$calls"
}

@test "disable takes the wall away" {
    need_root
    "$tool" enable 1
    run "$tool" disable 1
    [ "$status" -eq 0 ]
    [ ! -e "$SYSTEMD_DIR/gpu-worker@1.service.d" ]
    grep -q 'disable --now gpu-worker@1' "$calls"
}

@test "restart goes from one to the next, and stops at one that does not come back" {
    need_root
    run "$tool" restart
    [ "$status" -eq 0 ]
    [ "$(grep -c 'systemctl restart' "$calls")" -eq 2 ]
    stub systemctl '[ "$1" != restart ]'
    : >"$calls"
    run "$tool" restart 3 10
    [ "$status" -eq 69 ]
    [ "$(grep -c 'systemctl restart' "$calls")" -eq 1 ]
}

@test "status prints a table or JSON, and 1 when a worker does not run" {
    run "$tool" status --json 3
    [ "$status" -eq 0 ]
    [ "$output" = '{"workers":[{"gpu":3,"state":"active","pid":77,"restarts":2,"memory_mb":3,"exit_status":78,"status":"a \"b\""}]}' ]
    STATE=failed run "$tool" status
    [ "$status" -eq 1 ]
    [[ $output == *"ended with 78"* ]]
    [ "${#lines[@]}" -eq 3 ]
}

@test "logs and stop-all mean all workers that systemd knows" {
    run "$tool" logs -- --follow
    grep -q 'journalctl --unit=gpu-worker@3.service --unit=gpu-worker@10.service --follow' "$calls"
    need_root
    run "$tool" stop-all
    [ "$status" -eq 0 ]
    grep -q 'systemctl stop gpu-worker@3 gpu-worker@10' "$calls"
}
