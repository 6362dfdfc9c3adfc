#!/usr/bin/env bats
# shellcheck disable=SC2016 # the stubs expand what stands in quotes
# What maestro-gpu-vm asks of a hypervisor: listings as lspci prints them, stand-ins for the rest. No real one was tried.

bats_require_minimum_version 1.5.0

setup() {
    tool=$BATS_TEST_DIRNAME/../../deploy/proxmox/maestro-gpu-vm
    export PATH=$BATS_TEST_TMPDIR/bin:$PATH HOST_ROOT=$BATS_TEST_TMPDIR/host
    mkdir -p "$BATS_TEST_TMPDIR/bin" "$HOST_ROOT/proc" "$HOST_ROOT/sys/kernel/iommu_groups/1"
    echo "MemTotal:       32000000 kB" >"$HOST_ROOT/proc/meminfo"
    calls=$BATS_TEST_TMPDIR/calls
    : >"$calls"
    : >"$BATS_TEST_TMPDIR/config"
    stub qm "[ \"\$1\" != config ] || cat '$BATS_TEST_TMPDIR/config'"
    stub pct
    stub update-initramfs
    rig 12xrx580
}

stub() {
    printf '#!/bin/bash\necho "%s $*" >>"%s/calls"\n%s\n' "$1" "$BATS_TEST_TMPDIR" "${2-}" >"$BATS_TEST_TMPDIR/bin/$1"
    chmod +x "$BATS_TEST_TMPDIR/bin/$1"
}

rig() { stub lspci "cat '$BATS_TEST_DIRNAME/lspci/$1'"; }

# bus DRIVER ADDRESS...: functions in the made-up /sys, alone in their groups.
bus() {
    local driver=$1 function
    shift
    mkdir -p "$HOST_ROOT/sys/bus/pci/drivers/$driver"
    for function; do
        directory=$HOST_ROOT/sys/bus/pci/devices/$function
        mkdir -p "$directory" "$HOST_ROOT/sys/kernel/iommu_groups/${function%.*}/devices"
        ln -sfn "../../drivers/$driver" "$directory/driver"
        ln -sfn "../../../../kernel/iommu_groups/${function%.*}" "$directory/iommu_group"
        : >"$HOST_ROOT/sys/kernel/iommu_groups/${function%.*}/devices/$function"
        echo 0x030000 >"$directory/class"
    done
}

@test "help tells every command, wrong command lines end with 64" {
    run "$tool" --help
    [ "$status" -eq 0 ]
    for word in prepare create verify rollback lxc; do [[ $output == *"  $word "* ]]; done
    for arguments in "" "fly" "create" "create x" "create 99" "create 100 --cores 0" "create 100 --fast" "verify 100 --cores"; do
        # shellcheck disable=SC2086 # words are meant
        run "$tool" $arguments
        [ "$status" -eq 64 ]
    done
}

@test "prepare binds every function of the cards, and nothing else" {
    run "$tool" prepare
    [ "$status" -eq 0 ]
    grep -q '^options vfio-pci ids=1002:67df,1002:aaf0 disable_vga=1$' "$HOST_ROOT/etc/modprobe.d/maestro-vfio.conf"
    grep -q '^vfio_pci$' "$HOST_ROOT/etc/modules-load.d/maestro-vfio.conf"
    grep -q '^update-initramfs -u -k all$' "$calls"
    rig 8xgtx1660
    run "$tool" prepare
    grep -q 'ids=10de:1aeb,10de:1aec,10de:1aed,10de:2184 ' "$HOST_ROOT/etc/modprobe.d/maestro-vfio.conf"
}

@test "a dry run prints and changes nothing" {
    run "$tool" prepare --dry-run
    [ "$status" -eq 0 ]
    [[ $output == *"would write"*"ids=1002:67df,1002:aaf0"*"update-initramfs -u -k all"* ]]
    run "$tool" create 100 --dry-run
    [[ $output == *"qm create 100 "* ]]
    echo "hostpci0: 01:00,pcie=1" >"$BATS_TEST_TMPDIR/config"
    run "$tool" rollback 100 --dry-run
    [[ $output == *"qm set 100 --delete hostpci0"* ]]
    [ ! -e "$HOST_ROOT/etc" ]
    run ! grep -E 'qm (create|set|shutdown)|update-initramfs' "$calls"
}

@test "the host's screen and an IOMMU that is off are told" {
    bus amdgpu 0000:01:00.0
    echo 1 >"$HOST_ROOT/sys/bus/pci/devices/0000:01:00.0/boot_vga"
    rm -r "$HOST_ROOT/sys/kernel/iommu_groups"
    run "$tool" prepare --dry-run
    [[ $output == *"0000:01:00 is the host's screen"* ]]
    [[ $output == *"intel_iommu=on"* ]]
}

@test "create gives twelve AMD cards to one machine, with memory for all" {
    run "$tool" create 100 --cores 2
    [ "$status" -eq 0 ]
    run cat "$calls"
    [[ $output == *"--hostpci0 01:00,pcie=1 --hostpci1 02:00,pcie=1"*"--hostpci11 0c:00,pcie=1"* ]]
    [[ $output != *x-vga* && $output != *hidden* && $output != *hostpci12* && $output != *"00:02"* ]]
    [[ $output == *"--memory $((2048 + 12 * 1524)) --balloon 0"* ]]
    [[ $output == *"--machine q35 --bios ovmf"*"--cpu host --cores 2"* ]]
}

@test "create hides the hypervisor from GTX cards, and the first of them is the screen" {
    rig 8xgtx1660
    run "$tool" create 101 --cache-mb 250 --job-mb 750 --iso local:iso/debian-12.iso
    [ "$status" -eq 0 ]
    run cat "$calls"
    [[ $output == *"--cpu host,hidden=1"* ]]
    [[ $output == *"--hostpci0 01:00,pcie=1,x-vga=1 --hostpci1 02:00,pcie=1 --hostpci2"* ]]
    [[ $output == *"--memory 10048 "* ]]
    [[ $output == *"--ide2 local:iso/debian-12.iso,media=cdrom"* ]]
}

@test "too little memory and no cards are refused before anything is made" {
    echo "MemTotal:        8000000 kB" >"$HOST_ROOT/proc/meminfo"
    run "$tool" create 100
    [ "$status" -eq 75 ]
    rig none
    run "$tool" create 100
    [ "$status" -eq 66 ]
    run ! grep "qm create" "$calls"
}

@test "verify names what is wrong, and finds nothing when all is right" {
    rig 8xgtx1660
    functions=()
    for card in 01 02 03 04 05 06 07 08; do for function in 0 1 2 3; do functions+=("0000:$card:00.$function"); done; done
    bus vfio-pci "${functions[@]}"
    {
        echo "balloon: 0"
        echo "cpu: host,hidden=1"
        for card in 1 2 3 4 5 6 7 8; do echo "hostpci$((card - 1)): 0$card:00,pcie=1"; done
    } >"$BATS_TEST_TMPDIR/config"
    run "$tool" verify 100
    [ "$status" -eq 0 ]
    [[ $output == "RIGHT  8 cards, machine 100" ]]
    bus nouveau 0000:03:00.0
    bus ahci 0000:09:00.0
    : >"$HOST_ROOT/sys/kernel/iommu_groups/0000:05:00/devices/0000:09:00.0"
    sed -i '/08:00/d; /cpu:/d; /balloon/d' "$BATS_TEST_TMPDIR/config"
    run "$tool" verify 100
    [ "$status" -eq 1 ]
    [[ $output == *"0000:03:00.0 is not bound to vfio-pci"* ]]
    [[ $output == *"0000:05:00 shares its IOMMU group with 0000:09:00.0"* ]]
    [[ $output == *"0000:08:00 is not in the machine's configuration"* ]]
    [[ $output == *"hidden=1"* && $output == *"ballooning"* ]]
}

@test "rollback takes every card out and leaves the machine" {
    "$tool" prepare
    printf 'name: x\nhostpci0: 01:00,pcie=1\nhostpci11: 0c:00,pcie=1\n' >"$BATS_TEST_TMPDIR/config"
    run "$tool" rollback 100
    [ "$status" -eq 0 ]
    grep -q '^qm set 100 --delete hostpci0$' "$calls"
    grep -q '^qm set 100 --delete hostpci11$' "$calls"
    [ ! -e "$HOST_ROOT/etc/modprobe.d/maestro-vfio.conf" ]
    [ ! -e "$HOST_ROOT/etc/modules-load.d/maestro-vfio.conf" ]
    run ! grep destroy "$calls"
}

@test "lxc shows the nodes that are there" {
    mkdir -p "$HOST_ROOT/dev/dri"
    touch "$HOST_ROOT/dev/dri/renderD128" "$HOST_ROOT/dev/dri/renderD129" "$HOST_ROOT/dev/kfd"
    run "$tool" lxc 105
    [ "$status" -eq 0 ]
    grep -q '^pct set 105 --dev0 /dev/dri/renderD128,mode=0666 --dev1 /dev/dri/renderD129,mode=0666 --dev2 /dev/kfd,mode=0666$' "$calls"
}

@test "elsewhere than on Proxmox it says so" {
    rm "$BATS_TEST_TMPDIR/bin/qm"
    run "$tool" create 100
    [ "$status" -eq 69 ]
}

@test "every command for the hypervisor in the runbook works" {
    for card in 01 02 03 04 05 06 07 08 09 0a 0b 0c; do
        bus vfio-pci "0000:$card:00.0" "0000:$card:00.1"
        echo "hostpci$((16#$card - 1)): $card:00,pcie=1" >>"$BATS_TEST_TMPDIR/config"
    done
    echo "balloon: 0" >>"$BATS_TEST_TMPDIR/config"
    mkdir -p "$HOST_ROOT/dev"
    touch "$HOST_ROOT/dev/kfd"
    ln -s "$tool" "$BATS_TEST_TMPDIR/bin/maestro-gpu-vm"
    count=0
    while IFS= read -r line; do
        run bash -c "$line"
        echo "$line: $output"
        [ "$status" -eq 0 ]
        count=$((count + 1))
    done < <(awk '/^```sh hypervisor/ { inside = 1; next } /^```/ { inside = 0 } inside' "$BATS_TEST_DIRNAME/../../docs/OPERATIONS.md")
    [ "$count" -ge 8 ]
}
