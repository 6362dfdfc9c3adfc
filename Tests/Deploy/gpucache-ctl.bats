#!/usr/bin/env bats
# What people and units see of gpucache-ctl. What it keeps through crashes is tested in test_gpucache.py.

bats_require_minimum_version 1.5.0

setup() {
    top=$BATS_TEST_DIRNAME/../..
    tool=$top/deploy/gpucache/gpucache-ctl
    export GPUCACHE_CONF=$BATS_TEST_TMPDIR/gpucache.conf
    export PATH=$BATS_TEST_TMPDIR/bin:$PATH
    mkdir -p "$BATS_TEST_TMPDIR/bin"
    : >"$GPUCACHE_CONF"
}

# stub NAME: a program that notes how it was called.
stub() {
    printf '#!/bin/sh\necho "%s $*" >>"%s/calls"\n%s\n' "$1" "$BATS_TEST_TMPDIR" "${2-}" >"$BATS_TEST_TMPDIR/bin/$1"
    chmod +x "$BATS_TEST_TMPDIR/bin/$1"
}

# refused LINE WORDS...: the configuration is refused, with file, line and these words.
refused() {
    printf '# a comment\n%s\n' "$1" >"$GPUCACHE_CONF"
    run "$tool" check
    [ "$status" -eq 78 ]
    [[ $output == *"$GPUCACHE_CONF:2: "* ]]
    shift
    for word; do [[ $output == *"$word"* ]] || return 1; done
}

@test "help tells every command, wrong command lines end with 64" {
    run "$tool" --help
    [ "$status" -eq 0 ]
    for word in detect status enable disable mount unmount sync prewarm answer check; do [[ $output == *"  $word "* ]]; done
    run "$tool"
    [ "$status" -eq 64 ]
    run "$tool" fly
    [ "$status" -eq 64 ]
    run "$tool" status --fast
    [ "$status" -eq 64 ]
    run "$tool" status x
    [ "$status" -eq 64 ]
    run "$tool" status 1024
    [ "$status" -eq 64 ]
}

@test "the packaged configuration is right, and names every key with its default" {
    GPUCACHE_CONF=$top/deploy/gpucache/gpucache.conf run "$tool" check
    [ "$status" -eq 0 ]
    sed -n 's/^#\([A-Z_]*=.*\)/\1/p' "$top/deploy/gpucache/gpucache.conf" >"$GPUCACHE_CONF"
    [ "$(wc -l <"$GPUCACHE_CONF")" -eq 13 ]
    run "$tool" check
    [ "$status" -eq 0 ]
}

@test "values are read as systemd reads them" {
    printf '  GPU_IDS = "2,4-6"  \n; comment\nCACHE_MB='\''64'\''\n' >"$GPUCACHE_CONF"
    run "$tool" detect --json
    [ "$status" -eq 0 ]
    [[ $output == '{"cards":[2,4,5,6],'* ]]
}

@test "what is wrong in the configuration is told with file, line and what is allowed" {
    refused "CACHE_SIZE=3" "no key CACHE_SIZE" "CACHE_MB"
    refused "CACHE_MB=0" "from 1 to 1048576"
    refused "CACHE_MB=12.5" "from 1 to 1048576"
    refused "CACHE_MB=" "from 1 to 1048576"
    refused "SYNC_SEC=4" "from 5 to 86400"
    refused "GPU_COUNT=many" "auto or"
    refused "GPU_IDS=3-1" "such as 0,1,5-7"
    refused "BASE_ROOT=data" "absolute path"
    refused "BASE_ROOT=/data/../etc" "absolute path"
    refused "MERGE_ROOT=/srv/a:b" "absolute path"
    refused "PREWARM_ON_BOOT=true" "yes or no"
    refused "SYNC_SEC" "KEY=VALUE"
    refused 'CACHE_MB="5' "quotes"
    refused "BASE_ROOT=/a\\" "backslashes"
}

@test "the environment overrides the file and is checked like it" {
    echo "GPU_IDS=1" >"$GPUCACHE_CONF"
    GPU_IDS=3 run "$tool" detect --json
    [[ $output == '{"cards":[3],'* ]]
    CACHE_MB=x run "$tool" check
    [ "$status" -eq 78 ]
    [[ $output == *"environment: CACHE_MB=x"* ]]
}

@test "a cache may not lie in the place of another" {
    printf 'BASE_ROOT=/srv/gpucache/base\n' >"$GPUCACHE_CONF"
    run "$tool" check
    [ "$status" -eq 78 ]
    [[ $output == *"must not lie in MERGE_ROOT"* ]]
}

@test "a configuration that was named and is not there is an error" {
    GPUCACHE_CONF=/nowhere run "$tool" check
    [ "$status" -eq 78 ]
}

@test "cards are counted by gpu-worker" {
    stub gpu-worker "echo '{\"cards\":[{\"gpu_id\":0,\"pci\":\"a\"},{\"gpu_id\":1,\"pci\":\"b\"}]}'"
    run "$tool" detect --json
    [[ $output == '{"cards":[0,1],'* ]]
}

@test "without gpu-worker the display controllers of the bus are counted" {
    stub gpu-worker "exit 1"
    for device in "0x030000 0x1002" "0x030200 0x10de" "0x030000 0x1af4" "0x020000 0x10de"; do
        directory=$BATS_TEST_TMPDIR/sys/bus/pci/devices/${device// /-}
        mkdir -p "$directory"
        echo "${device% *}" >"$directory/class"
        echo "${device#* }" >"$directory/vendor"
    done
    SYSFS_ROOT=$BATS_TEST_TMPDIR/sys run "$tool" detect
    [[ $output == *"cards: 0 1"* ]]
}

@test "a cache that is not mounted cannot be saved, and status says so" {
    printf 'GPU_IDS=0\nRAM_ROOT=%s/ram\nMERGE_ROOT=%s/merge\n' "$BATS_TEST_TMPDIR" "$BATS_TEST_TMPDIR" >"$GPUCACHE_CONF"
    run "$tool" sync
    [ "$status" -eq 66 ]
    run "$tool" status --json
    [ "$status" -eq 0 ]
    [[ $output == *'"mode":"none"'* ]]
}

@test "enable gives the timer its interval and starts the units" {
    [ "$(id -u)" -eq 0 ] || skip "needs root"
    stub systemctl
    echo SYNC_SEC=25 >"$GPUCACHE_CONF"
    SYSTEMD_DIR=$BATS_TEST_TMPDIR/units run "$tool" enable 0-1
    [ "$status" -eq 0 ]
    grep -q '^OnUnitActiveSec=25$' "$BATS_TEST_TMPDIR/units/gpucache-sync@.timer.d/interval.conf"
    grep -q 'enable --now gpucache@1.service' "$BATS_TEST_TMPDIR/calls"
    run "$tool" disable 1
    grep -q 'disable --now gpucache@1.service' "$BATS_TEST_TMPDIR/calls"
}

@test "prewarm reads only files under the limit, and obeys PREWARM_ON_BOOT" {
    mkdir -p "$BATS_TEST_TMPDIR/base/gpu0"
    head -c 1000 /dev/zero >"$BATS_TEST_TMPDIR/base/gpu0/small file"
    head -c 2000000 /dev/zero >"$BATS_TEST_TMPDIR/base/gpu0/large"
    printf 'GPU_IDS=0\nBASE_ROOT=%s/base\nPREWARM_MAX_FILE_MB=1\n' "$BATS_TEST_TMPDIR" >"$GPUCACHE_CONF"
    stub cat
    run "$tool" prewarm
    [ "$status" -eq 0 ]
    grep -q "small file" "$BATS_TEST_TMPDIR/calls"
    run ! grep -q large "$BATS_TEST_TMPDIR/calls"
    rm "$BATS_TEST_TMPDIR/calls"
    PREWARM_ON_BOOT=no run "$tool" prewarm --on-boot
    [ "$status" -eq 0 ]
    [ ! -e "$BATS_TEST_TMPDIR/calls" ]
}

@test "answer does what a worker may ask for, and nothing else" {
    mkdir -p "$BATS_TEST_TMPDIR/base/gpu0"
    printf 'BASE_ROOT=%s/base\nRAM_ROOT=%s/ram\nMERGE_ROOT=%s/merge\n' "$BATS_TEST_TMPDIR" "$BATS_TEST_TMPDIR" "$BATS_TEST_TMPDIR" \
        >"$GPUCACHE_CONF"
    run "$tool" answer <<<"prewarm 0"
    [ "$status" -eq 0 ]
    [[ $output == "ok gpu0: files of "*" are in memory" ]]
    run "$tool" answer <<<"sync 0"
    [[ $output == "err gpu0: nothing to save: the cache is not mounted" ]]
    for line in "" "sync" "sync all" "sync 1024" "disable 0" 'sync 0 1' 'sync 0;id' "--help"; do
        run "$tool" answer <<<"$line"
        [ "$status" -eq 0 ]
        [[ $output == "err this is no request"* ]]
    done
    NATS_ENABLE=no run "$tool" answer <<<"sync 0"
    [[ $output == "err NATS_ENABLE is"* ]]
}

@test "enable puts the socket where RAM_ROOT is" {
    [ "$(id -u)" -eq 0 ] || skip "needs root"
    stub systemctl
    echo RAM_ROOT=/run/other >"$GPUCACHE_CONF"
    SYSTEMD_DIR=$BATS_TEST_TMPDIR/units run "$tool" enable 0
    [ "$status" -eq 0 ]
    grep -q '^ListenStream=/run/other/ask.sock$' "$BATS_TEST_TMPDIR/units/gpucache-ask.socket.d/path.conf"
    : >"$GPUCACHE_CONF"
    SYSTEMD_DIR=$BATS_TEST_TMPDIR/units run "$tool" enable 0
    [ ! -e "$BATS_TEST_TMPDIR/units/gpucache-ask.socket.d/path.conf" ]
}
