# shellcheck shell=bash disable=SC2034,SC2154,SC2015
# Which cards have a cache. Sourced by gpucache-ctl.

# How many cards this machine has: as gpu-worker counts them, else the display controllers of the usual vendors.
count_cards() {
    local listed
    if command -v gpu-worker >/dev/null && listed=$(gpu-worker --list --json 2>/dev/null); then
        grep -o '"gpu_id":' <<<"$listed" | wc -l
        return
    fi
    local device count=0
    for device in "${SYSFS_ROOT:-/sys}"/bus/pci/devices/*; do
        [[ -r $device/class && -r $device/vendor ]] || continue
        [[ $(<"$device/class") == 0x03* && $(<"$device/vendor") =~ ^0x(1002|10de)$ ]] && count=$((count + 1))
    done
    echo "$count"
}

# The numbers of the cards, each on a line.
configured_cards() {
    local count
    if [[ -n ${CONFIG[GPU_IDS]} ]]; then
        expand_ids "${CONFIG[GPU_IDS]}" | sort -nu
        return
    fi
    count=${CONFIG[GPU_COUNT]}
    [[ $count != auto ]] || count=$(count_cards)
    ((count == 0)) || seq 0 $((10#$count - 1))
}

# cards_of ARGUMENT...: the numbers meant by the arguments; all configured ones without any.
cards_of() {
    local argument
    if (($# == 0)); then
        configured_cards
        return
    fi
    for argument; do
        expand_ids "${argument#gpu}" || fail "$EX_USAGE" "\"$argument\" is not the number of a card, from 0 to 1023"
    done | sort -nu
}
