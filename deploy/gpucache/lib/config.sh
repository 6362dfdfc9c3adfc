# shellcheck shell=bash disable=SC2034,SC2154,SC2015
# The configuration of gpucache: one file of KEY=VALUE lines. Sourced by gpucache-ctl.

# Exit codes, as the other programs of the pool have them (sysexits.h).
readonly EX_USAGE=64 EX_NOTFOUND=66 EX_UNAVAILABLE=69 EX_CANTCREAT=73 EX_TEMPFAIL=75 EX_CONFIG=78

program=${0##*/}

# Under systemd the journal takes the priority from the number in front (sd-daemon(3)).
say() {
    local priority=$1
    shift
    if [[ -n ${JOURNAL_STREAM-} ]]; then
        printf '<%s>%s\n' "$priority" "$*" >&2
    else
        printf '%s: %s\n' "$program" "$*" >&2
    fi
}
info() { [[ -n ${QUIET-} ]] || say 6 "$@"; }
warn() { say 4 "$@"; }

# fail CODE TEXT
fail() {
    local code=$1
    shift
    say 3 "$@"
    exit "$code"
}

declare -A CONFIG=(
    [GPU_COUNT]=auto [GPU_IDS]='' [CACHE_MB]=500
    [BASE_ROOT]=/data/gpucache [PERSIST_ROOT]=/data/gpucache [RAM_ROOT]=/run/gpucache [MERGE_ROOT]=/srv/gpucache
    [SYNC_SEC]=60 [MIN_FREE_MB]=256
    [PREWARM_ON_BOOT]=yes [PREWARM_MAX_FILE_MB]=128 [PREWARM_PARALLEL]=4 [NATS_ENABLE]=yes
)

# whole VALUE LOW HIGH
whole() { [[ $1 =~ ^[0-9]{1,8}$ ]] && ((10#$1 >= $2 && 10#$1 <= $3)); }

# What a key takes, for a person; returns 1 for a key that does not exist.
allowed_values() {
    case $1 in
    GPU_COUNT) echo "auto or a whole number from 0 to 1024" ;;
    GPU_IDS) echo "numbers from 0 to 1023 between commas, such as 0,1,5-7" ;;
    CACHE_MB) echo "a whole number from 1 to 1048576" ;;
    BASE_ROOT | PERSIST_ROOT | RAM_ROOT | MERGE_ROOT) echo "an absolute path without spaces, quotes, colons, commas or dots for parents" ;;
    SYNC_SEC) echo "a whole number from 5 to 86400" ;;
    MIN_FREE_MB) echo "a whole number from 0 to 1048576" ;;
    PREWARM_MAX_FILE_MB) echo "a whole number from 0 to 1048576" ;;
    PREWARM_PARALLEL) echo "a whole number from 1 to 64" ;;
    PREWARM_ON_BOOT | NATS_ENABLE) echo "yes or no" ;;
    *) return 1 ;;
    esac
}

# Colons and commas would be read as separators by mount's options.
plain_path() { [[ $1 =~ ^(/[A-Za-z0-9_@%+=.-]+)+$ && ! $1/ =~ /\.{1,2}/ ]]; }

value_is_right() {
    local key=$1 value=$2
    case $key in
    GPU_COUNT) [[ $value == auto ]] || whole "$value" 0 1024 ;;
    GPU_IDS) [[ -z $value ]] || expand_ids "$value" >/dev/null ;;
    CACHE_MB) whole "$value" 1 1048576 ;;
    BASE_ROOT | PERSIST_ROOT | RAM_ROOT | MERGE_ROOT) plain_path "$value" ;;
    SYNC_SEC) whole "$value" 5 86400 ;;
    MIN_FREE_MB | PREWARM_MAX_FILE_MB) whole "$value" 0 1048576 ;;
    PREWARM_PARALLEL) whole "$value" 1 64 ;;
    PREWARM_ON_BOOT | NATS_ENABLE) [[ $value == yes || $value == no ]] ;;
    esac
}

# expand_ids 0,1,5-7: each number on a line; returns 1 if it is no such list.
expand_ids() {
    local part low high
    local -a parts
    IFS=', ' read -ra parts <<<"$1"
    ((${#parts[@]} > 0)) || return 1
    for part in "${parts[@]}"; do
        [[ $part =~ ^([0-9]{1,4})(-([0-9]{1,4}))?$ ]] || return 1
        low=$((10#${BASH_REMATCH[1]}))
        high=$((10#${BASH_REMATCH[3]:-$low}))
        ((low <= high && high <= 1023)) || return 1
        seq "$low" "$high"
    done
}

# The value of a line as systemd's EnvironmentFile= reads it, for the forms that are needed here: bare, or all in one
# pair of quotes. Returns 1 for anything else.
unquoted() {
    local value=$1
    value=${value#"${value%%[![:space:]]*}"}
    value=${value%"${value##*[![:space:]]}"}
    case $value in
    \"*\" | \'*\')
        ((${#value} >= 2)) || return 1
        value=${value:1:${#value}-2}
        ;;
    esac
    [[ $value != *[\"\'\\]* ]] || return 1
    printf '%s' "$value"
}

set_value() {
    local key=$1 value=$2 place=$3 allowed
    allowed=$(allowed_values "$key") || fail "$EX_CONFIG" "$place: there is no key $key (there are: $(known_keys))"
    value_is_right "$key" "$value" || fail "$EX_CONFIG" "$place: $key=$value: must be $allowed"
    CONFIG[$key]=$value
}

known_keys() { printf '%s\n' "${!CONFIG[@]}" | sort | tr '\n' ' ' | sed 's/ $//'; }

# Reads the file, then the environment, which overrides it. A missing file at the usual place means the defaults.
load_config() {
    local file=${GPUCACHE_CONF:-/etc/gpucache/gpucache.conf} line number=0 key value
    if [[ -e $file ]]; then
        [[ -r $file && ! -d $file ]] || fail "$EX_CONFIG" "$file cannot be read"
        while IFS= read -r line || [[ -n $line ]]; do
            number=$((number + 1))
            line=${line#"${line%%[![:space:]]*}"}
            [[ -n $line && $line != [#\;]* ]] || continue
            [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*=(.*)$ ]] ||
                fail "$EX_CONFIG" "$file:$number: not a line of the form KEY=VALUE: $line"
            key=${BASH_REMATCH[1]}
            value=$(unquoted "${BASH_REMATCH[2]}") ||
                fail "$EX_CONFIG" "$file:$number: $key: quotes and backslashes within a value are not understood"
            set_value "$key" "$value" "$file:$number"
        done <"$file"
    elif [[ -n ${GPUCACHE_CONF-} ]]; then
        fail "$EX_CONFIG" "$file (GPUCACHE_CONF) does not exist"
    fi
    for key in "${!CONFIG[@]}"; do
        [[ -z ${!key-} ]] || set_value "$key" "${!key}" "environment"
    done
    check_roots "$file"
}

# No root may lie in a place where another one's content would be hidden or saved.
check_roots() {
    local file=$1 a b
    for a in RAM_ROOT MERGE_ROOT BASE_ROOT PERSIST_ROOT; do
        for b in RAM_ROOT MERGE_ROOT; do
            [[ $a != "$b" ]] || continue
            [[ ${CONFIG[$a]}/ != "${CONFIG[$b]}"/* ]] ||
                fail "$EX_CONFIG" "$file: $a=${CONFIG[$a]}: must not lie in $b=${CONFIG[$b]}"
        done
    done
}
