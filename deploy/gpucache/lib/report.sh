# shellcheck shell=bash disable=SC2034,SC2154,SC2015
# What gpucache-ctl prints, for people and as JSON. Sourced by gpucache-ctl.

# A text as a string of JSON. Our own texts hold no control characters.
json_text() {
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

print_detected() {
    local json=$1 problem
    shift
    problem=$(overlay_problem)
    if [[ $json == yes ]]; then
        local IFS=,
        printf '{"cards":[%s],"overlay":%s,"problem":%s}\n' "$*" \
            "$([[ -z $problem ]] && echo true || echo false)" "$(json_text "$problem")"
    else
        echo "cards: ${*:-none}"
        echo "overlay: ${problem:-works}"
    fi
}

# The facts of one card, set as variables of print_status.
look_at_card() {
    mode=$(cache_mode)
    used=0
    percent=0
    if is_tmpfs; then
        read -r used percent < <(df --output=used,pcent --block-size=1M "$ram" | tail -n 1 | tr -d %)
    fi
    snapshot=$(current_snapshot)
    age=
    # The name holds the time at which it was begun, in nanoseconds.
    [[ ! $snapshot =~ ^snap-([0-9]+)[0-9]{9}$ ]] || age=$(($(date +%s) - BASH_REMATCH[1]))
    last=$(noted sync)
    happened=$(noted event)
    [[ -n $happened ]] || happened=$(noted problem)
}

print_status() {
    local json=$1 number separator='' mode used percent snapshot age last happened
    shift
    [[ $json == yes ]] && printf '{"caches":[' ||
        printf '%-4s %-8s %9s %5s %-12s %-10s %s\n' CARD MODE USED_MB USED SNAPSHOT_SEC SYNC NOTE
    for number in "$@"; do
        use_card "$number"
        look_at_card
        if [[ $json == yes ]]; then
            printf '%s{"gpu":%s,"mode":"%s","path":%s,"cache_mb":%s,"used_mb":%s,"used_percent":%s' "$separator" \
                "$number" "$mode" "$(json_text "$merged")" "${CONFIG[CACHE_MB]}" "$used" "$percent"
            printf ',"snapshot":%s,"snapshot_age_sec":%s,"sync":%s,"note":%s}' \
                "$(json_text "$snapshot")" "${age:-null}" "$(json_text "$last")" "$(json_text "$happened")"
            separator=,
        else
            printf '%-4s %-8s %9s %4s%% %-12s %-10s %s\n' "$number" "$mode" "$used" "$percent" "${age:--}" "${last:--}" "$happened"
        fi
    done
    [[ $json != yes ]] || echo ']}'
}
