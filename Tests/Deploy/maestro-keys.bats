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
    for word in init add list; do [[ $output == *"  $word "* ]]; done
    for arguments in "" "fly" "init" "add worker" "add king anna" "add worker a/b" "list --fast" "list --dir"; do
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
