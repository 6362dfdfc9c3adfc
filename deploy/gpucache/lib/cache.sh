# shellcheck shell=bash disable=SC2034,SC2154,SC2015
# One card's cache: put together, taken apart. Sourced by gpucache-ctl.
#
#   BASE_ROOT/gpuN                      on disk, never written by jobs
#   RAM_ROOT/gpuN                       a tmpfs of CACHE_MB: upper, work, and the mark that upper is whole
#   MERGE_ROOT/gpuN                     the overlay of both
#   PERSIST_ROOT/gpuN.snapshots         copies of upper; `current` names the last whole one
#
# Everything that changes a cache holds its lock. Programs that are started inherit the lock, so it outlives a killed
# gpucache-ctl until the last of them has ended: nobody works on the same cache beside an orphan.

# use_card N: sets the paths of a card.
use_card() {
    card=$1
    base=${CONFIG[BASE_ROOT]}/gpu$card
    ram=${CONFIG[RAM_ROOT]}/gpu$card
    upper=$ram/upper
    work=$ram/work
    mark=$ram/whole
    merged=${CONFIG[MERGE_ROOT]}/gpu$card
    snapshots=${CONFIG[PERSIST_ROOT]}/gpu$card.snapshots
    state=${CONFIG[RAM_ROOT]}/gpu$card.state
}

# lock_card: waits for the card's lock, five minutes at most, and holds it until this process ends.
lock_card() {
    make_directory "${CONFIG[RAM_ROOT]}"
    exec {lock}>"${CONFIG[RAM_ROOT]}/gpu$card.lock" ||
        fail "$EX_CANTCREAT" "gpu$card: ${CONFIG[RAM_ROOT]} cannot be written"
    flock --wait 300 "$lock" || fail "$EX_TEMPFAIL" "gpu$card: another gpucache-ctl has held the cache for five minutes"
}

make_directory() { mkdir -p "$1" || fail "$EX_CANTCREAT" "$1 cannot be made"; }

is_mounted() { findmnt --noheadings --mountpoint "$1" --types "$2" >/dev/null 2>&1; }
is_overlay() { is_mounted "$merged" overlay; }
is_tmpfs() { is_mounted "$ram" tmpfs; }
# The mark is the last thing that a restore makes.
is_whole() { is_tmpfs && [[ -e $mark ]]; }

# What kind of cache the card has now: overlay, plain, or none.
cache_mode() {
    if is_overlay; then
        echo overlay
    elif [[ -e $merged/.gpucache-plain ]]; then
        echo plain
    else
        echo none
    fi
}

# note KEY TEXT: keeps what happened last, for `status`: one file a key, replaced as a whole.
note() {
    mkdir -p "$state" && printf '%s\n' "$2" >"$state/$1.new" && mv -f "$state/$1.new" "$state/$1" ||
        warn "gpu$card: $state cannot be written"
}
noted() { cat "$state/$1" 2>/dev/null || true; }

# Why there can be no overlay here; nothing if there can.
overlay_problem() {
    if [[ ${GPUCACHE_PLAIN-} == yes ]]; then
        echo "GPUCACHE_PLAIN=yes"
    elif [[ $(id -u) -ne 0 ]]; then
        echo "this user is not root"
    elif ! grep -qw overlay /proc/filesystems && ! modprobe overlay 2>/dev/null; then
        echo "the kernel has no overlay file system"
    fi
}

mount_cache() {
    local problem
    make_base
    make_directory "$merged"
    if is_overlay; then
        info "gpu$card: $merged is mounted"
        return 0
    fi
    problem=$(overlay_problem)
    if [[ -n $problem ]]; then
        plain_cache "$problem"
        return 0
    fi
    if [[ -e $merged/.gpucache-plain ]]; then
        warn "gpu$card: $merged was a plain directory until now; what jobs left in it is hidden by the overlay"
    fi
    mount_memory
    if ! is_whole; then restore_upper; fi
    # No option of the kernel's own default: redirects and metacopies would make what is saved depend on it.
    if ! mount -t overlay overlay \
        -o "lowerdir=$base,upperdir=$upper,workdir=$work,index=off,metacopy=off,redirect_dir=off" "$merged"; then
        plain_cache "the overlay could not be mounted"
        return 0
    fi
    note problem ""
    info "gpu$card: $merged is mounted, with ${CONFIG[CACHE_MB]} MB of memory over $base"
}

# The owner of the base is the owner of the cache: a new one is the workers'.
make_base() {
    [[ ! -d $base ]] || return 0
    make_directory "$base"
    if [[ $(id -u) -eq 0 ]] && getent passwd gpu-worker >/dev/null; then chown gpu-worker:gpu-worker "$base"; fi
}

mount_memory() {
    local size=${CONFIG[CACHE_MB]}m
    make_directory "$ram"
    if is_tmpfs; then
        mount -o "remount,size=$size" "$ram" || fail "$EX_UNAVAILABLE" "gpu$card: $ram cannot be made $size large"
    else
        # Others reach the files through the overlay, never here.
        mount -t tmpfs -o "size=$size,mode=0700,nodev" gpucache "$ram" ||
            fail "$EX_UNAVAILABLE" "gpu$card: no tmpfs can be mounted at $ram"
    fi
}

# Without an overlay the cache is a directory on disk: it needs no saving, and shows the base by links.
plain_cache() {
    local entry
    warn "gpu$card: $merged is a plain directory, not an overlay: $1. What jobs write goes to disk"
    note problem "plain directory: $1"
    if [[ $(id -u) -eq 0 ]]; then chown --reference="$base" "$merged"; fi
    : >"$merged/.gpucache-plain" || fail "$EX_CANTCREAT" "gpu$card: $merged cannot be written"
    for entry in "$base"/*; do
        [[ ! -e $entry || -e $merged/${entry##*/} ]] || ln -s "$entry" "$merged/${entry##*/}"
    done
}

unmount_cache() {
    if is_whole; then
        # A cache that cannot be saved stays in memory: taking it apart would lose it.
        sync_cache || fail "$EX_TEMPFAIL" "gpu$card: not unmounted, since it could not be saved (unmount --discard loses it)"
    fi
    take_apart
}

take_apart() {
    local tries
    for tries in {1..20}; do
        is_overlay || break
        umount "$merged" 2>/dev/null && break
        ((tries < 20)) || fail "$EX_TEMPFAIL" "gpu$card: $merged is in use; stop gpu-worker@$card and whoever stands in it"
        sleep 0.5
    done
    if is_tmpfs; then
        rm -f "$mark"
        umount "$ram" || fail "$EX_TEMPFAIL" "gpu$card: $ram is in use"
    fi
    info "gpu$card: unmounted"
}
