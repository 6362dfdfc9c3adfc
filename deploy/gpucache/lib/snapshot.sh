# shellcheck shell=bash disable=SC2034,SC2154,SC2015
# Snapshots: what a crash at any moment leaves whole. Sourced by gpucache-ctl.
#
# A snapshot is copied under a name that says it is not whole, with hard links to the files of the one before that did
# not change; it is brought to disk, renamed, and then becomes the truth by one rename of the link `current`. Nothing
# in a whole snapshot is ever changed: rsync writes new files and renames them.

# Nanoseconds decide whether a file changed: a job may write twice in a second without changing a size.
readonly RSYNC=(rsync -aHAXS --numeric-ids --delete --modify-window=-1 --quiet)

# The name of the last whole snapshot; nothing if there is none.
current_snapshot() {
    local name
    name=$(readlink "$snapshots/current") || name=
    [[ -n $name && -d $snapshots/$name ]] && echo "$name"
    return 0
}

# For a restore: `current`, or the newest whole one if the disk lost the link.
snapshot_to_restore() {
    local name
    name=$(current_snapshot)
    if [[ -z $name ]]; then
        name=$(find "$snapshots" -mindepth 1 -maxdepth 1 -name 'snap-*' -printf '%f\n' 2>/dev/null | sort | tail -n 1)
        [[ -z $name ]] || warn "gpu$card: the link to the last snapshot is lost; restoring $name"
    fi
    echo "$name"
}

# Fills the empty memory with the last snapshot. Killed half-way, it leaves no mark, and is done anew.
restore_upper() {
    local name
    rm -rf "$upper" "$work" && mkdir "$upper" "$work" &&
        chown --reference="$base" "$upper" && chmod --reference="$base" "$upper" ||
        fail "$EX_UNAVAILABLE" "gpu$card: $ram cannot be filled"
    name=$(snapshot_to_restore)
    if [[ -n $name ]]; then
        "${RSYNC[@]}" "$snapshots/$name/" "$upper/" ||
            fail "$EX_UNAVAILABLE" "gpu$card: $snapshots/$name could not be restored; is CACHE_MB too small for it?"
        info "gpu$card: restored $name"
    fi
    : >"$mark"
}

# Bytes that a directory's files take.
bytes_of() { du --summarize --block-size=1 "$1" | cut -f 1; }
free_bytes() { df --output=avail --block-size=1 "$1" | tail -n 1; }

# Whether a whole new copy would fit. More than is needed in most cases: unchanged files are linked.
has_room() {
    local need=$1 free
    free=$(free_bytes "$snapshots")
    ((free >= need + CONFIG[MIN_FREE_MB] * 1048576))
}

# event NAME TEXT: what an operator must hear of, in the journal and in `status`.
event() {
    warn "gpu$card: $1: $2"
    note event "$1: $2"
}

watch_memory() {
    local percent
    percent=$(df --output=pcent "$ram" | tail -n 1 | tr -dc 0-9)
    ((percent < 90)) || event cache_full "$percent % of ${CONFIG[CACHE_MB]} MB are used; jobs that write will soon fail"
}

sync_cache() {
    local last name building
    if ! is_whole; then
        [[ -e $merged/.gpucache-plain ]] && return 0
        warn "gpu$card: nothing to save: the cache is not mounted"
        return "$EX_NOTFOUND"
    fi
    make_directory "$snapshots"
    chmod 0700 "$snapshots"
    note event ""
    watch_memory
    remove_old_snapshots
    if ! has_room "$(bytes_of "$upper")"; then
        event no_space "$snapshots has too little room left for a snapshot; the last one stays"
        note sync "failed: no space"
        return "$EX_CANTCREAT"
    fi
    last=$(current_snapshot)
    name=snap-$(date +%s%N)
    building=$snapshots/building-$name
    copy_upper "$building" "$last" || return "$EX_UNAVAILABLE"
    if ! publish_snapshot "$building" "$name"; then
        event sync_failed "the snapshot could not be brought to disk; the last one stays"
        note sync "failed: not on disk"
        return "$EX_UNAVAILABLE"
    fi
    note sync "ok"
    remove_old_snapshots
    info "gpu$card: saved as $name"
}

# copy_upper TO LAST: copies until nothing changed while it was copied, three times at most. A file that a job moves from
# a directory not yet read to one already read would be in neither.
copy_upper() {
    local pass again=$1.again
    copy_once "$1" "$2" || return 1
    for pass in 2 3; do
        [[ -n $("${RSYNC[@]}" --dry-run --itemize-changes "$upper/" "$1/" 2>&1) ]] || return 0
        # Never in place: what is linked to an earlier snapshot must not change.
        copy_once "$again" "$1" && rm -rf "$1" && mv -T "$again" "$1" || return 1
    done
    info "gpu$card: jobs write all the time; files may be saved in states a moment apart"
}

# copy_once TO LAST
copy_once() {
    local -a link=()
    local status=0
    [[ -z $2 ]] || link=("--link-dest=$(realpath "$snapshots/${2#"$snapshots/"}")")
    "${RSYNC[@]}" "${link[@]}" "$upper/" "$1/" || status=$?
    # 24: a file went away while it was looked at. Jobs may do that.
    if ((status != 0 && status != 24)); then
        event sync_failed "rsync ended with $status; the last snapshot stays"
        note sync "failed: rsync ended with $status"
        rm -rf "$1"
        return 1
    fi
}

# publish_snapshot DIRECTORY NAME
publish_snapshot() {
    # What the link will name must be on disk before the link is.
    sync -f "$1" &&
        mv -T "$1" "$snapshots/$2" &&
        ln -sfn "$2" "$snapshots/current.new" &&
        mv -T "$snapshots/current.new" "$snapshots/current" &&
        sync -f "$snapshots"
}

# Keeps the last whole snapshot alone, and nothing half-made.
remove_old_snapshots() {
    local keep entry
    keep=$(snapshot_to_restore)
    for entry in "$snapshots"/building-* "$snapshots"/snap-* "$snapshots"/current.new; do
        [[ -e $entry || -L $entry ]] || continue
        [[ ${entry##*/} == "$keep" ]] || rm -rf "$entry"
    done
}
