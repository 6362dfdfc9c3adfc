#!/usr/bin/env bats
# The command line of maestro-keys; that servers and programs take what it makes is tested in Tests/System/test_roles.py.

bats_require_minimum_version 1.5.0

setup() {
    tool=$BATS_TEST_DIRNAME/../../deploy/nats/maestro-keys
    pool=$BATS_TEST_TMPDIR/pool
}

@test "help tells every command, wrong command lines end with 64" {
    run "$tool" --help
    [ "$status" -eq 0 ]
    for word in init add remove list use server; do [[ $output == *"  $word "* ]]; done
    for arguments in "" "fly" "init" "add worker" "add king anna" "add worker a/b" "list --fast" "list --dir" "remove" "use worker x" "use worker x nats://a" "server"; do
        # shellcheck disable=SC2086 # words are meant
        run "$tool" $arguments
        [ "$status" -eq 64 ]
    done
}

@test "init makes a user for each role, and keeps what is there" {
    "$tool" init --dir "$pool" rig1 192.0.2.1
    [ "$(wc -l <"$pool/keys/users")" -eq 5 ]
    openssl verify -CAfile "$pool/tls/ca.pem" "$pool/tls/server.pem"
    run openssl x509 -in "$pool/tls/server.pem" -noout -ext subjectAltName
    [[ $output == *"DNS:rig1"*"IP Address:192.0.2.1"* ]]
    before=$(cat "$pool"/keys/*.nk "$pool"/tls/*)
    "$tool" init --dir "$pool" rig1
    [ "$before" = "$(cat "$pool"/keys/*.nk "$pool"/tls/*)" ]
}

@test "secrets are nobody else's" {
    "$tool" init --dir "$pool" rig1
    for secret in keys/submitter.nk keys/admin.nk tls/ca.key; do [ "$(stat -c %a "$pool/$secret")" = 600 ]; done
    [ "$(stat -c %a "$pool/tls/ca.pem")" = 644 ]
    grep -q '^SU' "$pool/keys/admin.nk"
    grep -q '^U' "$pool/keys/admin.pub"
    run ! grep -qE '\bS[A-Z2-7]{57}' "$pool/users.conf"
}

@test "add makes one user of a name" {
    run "$tool" add worker rig2 --dir "$pool"
    [ "$status" -eq 66 ]
    "$tool" init --dir "$pool" rig1
    run "$tool" add worker rig2 --dir "$pool"
    [ "$status" -eq 0 ]
    [ "$output" = "$pool/keys/rig2.nk" ]
    grep -q "$(cat "$pool/keys/rig2.pub"), permissions: \$WORKER } # rig2" "$pool/users.conf"
    run "$tool" add submitter rig2 --dir "$pool"
    [ "$status" -eq 73 ]
}

@test "a user that is removed is gone from the server's list" {
    "$tool" init --dir "$pool" rig1
    public=$(cat "$pool/keys/observer.pub")
    grep -q "$public" "$pool/users.conf"
    "$tool" remove observer --dir "$pool"
    run ! grep -q "$public" "$pool/users.conf"
    [ ! -e "$pool/keys/observer.nk" ]
    run "$tool" remove observer --dir "$pool"
    [ "$status" -eq 66 ]
    [ "$("$tool" list --dir "$pool" | wc -l)" -eq 4 ]
}

@test "use puts the key into a configuration and keeps its other lines" {
    "$tool" init --dir "$pool" rig1
    printf '# mine\nMAX_TEMP_C=70\nNATS_URL=nats://old:4222\n#NATS_URL=x\n' >"$BATS_TEST_TMPDIR/conf"
    chmod 600 "$BATS_TEST_TMPDIR/conf"
    for _ in 1 2; do "$tool" use worker "$BATS_TEST_TMPDIR/conf" tls://rig1:4222 --dir "$pool"; done
    [ "$(stat -c %a "$BATS_TEST_TMPDIR/conf")" = 600 ]
    [ "$(cat "$BATS_TEST_TMPDIR/conf")" = "# mine
MAX_TEMP_C=70
#NATS_URL=x
NATS_URL=tls://rig1:4222
NATS_TLS_CA=$pool/tls/ca.pem
NATS_NKEY_SEED_FILE=$pool/keys/worker.nk
NATS_NKEY_PUBLIC=$(cat "$pool/keys/worker.pub")" ]
    run "$tool" use nobody "$BATS_TEST_TMPDIR/conf" tls://rig1:4222 --dir "$pool"
    [ "$status" -eq 66 ]
    "$tool" use admin "$BATS_TEST_TMPDIR/fresh" tls://rig1:4222 --dir "$pool"
    [ "$(wc -l <"$BATS_TEST_TMPDIR/fresh")" -eq 4 ]
}

@test "server makes another certificate of the same authority" {
    "$tool" init --dir "$pool" rig1
    authority=$(cat "$pool/tls/ca.pem")
    "$tool" server rig1 rig4 --dir "$pool"
    [ "$authority" = "$(cat "$pool/tls/ca.pem")" ]
    openssl verify -CAfile "$pool/tls/ca.pem" "$pool/tls/server.pem"
    run openssl x509 -in "$pool/tls/server.pem" -noout -ext subjectAltName
    [[ $output == *"DNS:rig4"* ]]
    rm "$pool/tls/ca.key"
    run "$tool" server rig5 --dir "$pool"
    [ "$status" -eq 66 ]
}
