import Glibc
import JobModel
import Testing

@testable import ServiceSupport

/// A file of this test, removed at its end.
final class TemporaryFile {
    let path: String

    init(_ text: String) throws {
        path = "/tmp/maestro-settings-\(UInt64.random(in: 0 ... .max))"
        let stream = try #require(fopen(path, "w"))
        defer { fclose(stream) }
        #expect(fputs(text, stream) >= 0)
    }

    deinit { unlink(path) }
}

@Suite("Settings")
struct SettingsTests {
    static let queue = SettingKey<Int>.wholeNumber("MAX_QUEUE", default: 1000, in: 1...5000, help: "")
    static let period = SettingKey<Double>.seconds("HEARTBEAT_SEC", default: 5, in: 0.1...60, help: "how often")
    static let sync = SettingKey<Bool>.yesNo("SYNC", default: false, help: "")
    static let allowed = SettingKey<[String]>.words("ALLOW_CWD", help: "")
    static let schema = SettingsSchema(
        defaultFile: "/nonexistent/maestro.conf",
        fileVariable: "MAESTRO_CONF",
        keys: CommonKeys.all + [queue.declaration, period.declaration, sync.declaration, allowed.declaration]
    )

    private func load(
        _ text: String? = nil,
        environment: [String: String] = [:],
        overrides: [Settings.Override] = [],
        schema: SettingsSchema = Self.schema
    ) throws -> Settings {
        guard let text else {
            return try Settings(schema: schema, overrides: overrides, environment: { environment[$0] })
        }
        let file = try TemporaryFile(text)
        return try withExtendedLifetime(file) {
            try Settings(schema: schema, file: file.path, overrides: overrides, environment: { environment[$0] })
        }
    }

    @Test func defaultsHoldWithoutAnyFile() throws {
        let settings = try load()
        #expect(settings[Self.queue] == 1000)
        #expect(settings.duration(Self.period) == .seconds(5))
        #expect(settings[CommonKeys.natsURL] == [.local])
        #expect(settings.file == nil)
    }

    @Test func theLaterSourceWins() throws {
        let text = "MAX_QUEUE=1\nHEARTBEAT_SEC=0.5\nSYNC=yes\nALLOW_CWD='/a /b'\n"
        let flag = Settings.Override(key: "MAX_QUEUE", flag: "--max-queue", value: "3")
        let settings = try load(text, environment: ["MAX_QUEUE": "2", "SYNC": "no"], overrides: [flag])
        #expect(settings[Self.queue] == 3)
        #expect(settings.origin(of: Self.queue) == .flag("--max-queue"))
        #expect(settings[Self.sync] == false)
        #expect(settings.duration(Self.period) == .milliseconds(500))
        #expect(settings[Self.allowed] == ["/a", "/b"])
    }

    @Test func serversStandBetweenCommas() throws {
        #expect(try load("NATS_URL=nats://a:1, b:2\n")[CommonKeys.natsURL].map(\.text) == ["nats://a:1", "nats://b:2"])
        #expect(throws: SettingsError.self) { try load("NATS_URL=not a url\n") }
    }

    @Test func anEmptyValueMeansTheDefault() throws {
        #expect(try load("MAX_QUEUE=7\n", environment: ["MAX_QUEUE": ""])[Self.queue] == 1000)
    }

    @Test(arguments: [
        ("MAX_QUEU=5\n", "\"MAX_QUEU\" is not a known key; did you mean MAX_QUEUE? (in FILE line 1)"),
        ("export SYNC=yes\n", "\"export SYNC\" is not a known key (in FILE line 1)"),
        ("A=1\n", "\"A\" is not a known key (in FILE line 1)"),
        ("\nMAX_QUEUE=0\n", "MAX_QUEUE: \"0\" is not a whole number from 1 to 5000 (in FILE line 2)"),
        ("MAX_QUEUE=many\n", "MAX_QUEUE: \"many\" is not a whole number from 1 to 5000 (in FILE line 1)"),
        ("HEARTBEAT_SEC=nan\n", "HEARTBEAT_SEC: \"nan\" is not 0.1 to 60 seconds (in FILE line 1)"),
        ("SYNC=perhaps\n", "SYNC: \"perhaps\" is neither yes nor no (in FILE line 1)"),
        (
            "NATS_URL=http://h\n",
            "NATS_URL: \"http://h\" is not a server's address: the scheme must be nats or tls, as in nats://host:4222 "
                + "(in FILE line 1)"
        ),
    ])
    func aBadFileIsRefusedWithItsPlace(_ text: String, _ expected: String) throws {
        let file = try TemporaryFile(text)
        let error = #expect(throws: SettingsError.self) {
            try Settings(schema: Self.schema, file: file.path, environment: { _ in nil })
        }
        #expect(error?.description == expected.replacing("FILE", with: file.path))
    }

    @Test func aBadVariableOrFlagIsNamed() throws {
        let variable = #expect(throws: SettingsError.self) { try load(environment: ["SYNC": "x"]) }
        #expect(variable?.description == "SYNC: \"x\" is neither yes nor no (in the environment variable SYNC)")
        let flag = Settings.Override(key: "NATS_URL", flag: "--nats", value: "nats://u:secret@:1")
        let override = #expect(throws: SettingsError.self) { try load(overrides: [flag]) }
        #expect(override?.origin == .flag("--nats"))
        #expect(override?.description.contains("secret") == false)
    }

    @Test func aNamedFileMustExist() throws {
        let error = #expect(throws: SettingsError.self) { try load(environment: ["MAESTRO_CONF": "/nonexistent/x"]) }
        let text = "the configuration file /nonexistent/x cannot be read: No such file or directory"
        #expect(error?.description == text)
    }

    @Test func replacedKeysAreAcceptedWithAWarning() throws {
        let text = "SCHEDULE_TICK_SEC=1\nRUN_SUBJECT=a\nSUBMIT_SUBJECT=b\nDONE_SUBJECT=c\nERR_SUBJECT=d\nSYNC=yes\n"
        let settings = try load(text)
        #expect(settings.warnings.count == 5)
        #expect(settings.warnings[1].hasPrefix("RUN_SUBJECT has no effect any more: set RUN_SUBJECT_PREFIX instead"))
        #expect(settings[Self.sync])
    }

    @Test func aForeignFileMayHoldOtherKeys() throws {
        let schema = SettingsSchema(
            defaultFile: nil,
            fileVariable: nil,
            keys: [Self.queue.declaration],
            unknownKeys: .ignored
        )
        #expect(try load("OTHER=1\nMAX_QUEUE=9\n", schema: schema)[Self.queue] == 9)
    }

    @Test func helpListsEveryKeyWithItsDefault() {
        #expect(Self.schema.helpText().contains("HEARTBEAT_SEC        how often (default 5)"))
    }

    // MARK: pool names

    @Test func poolNamesFollowThePrefixes() throws {
        let names = try load("SUBJECT_PREFIX=p2\nSTREAM_PREFIX=P2\nSTREAM_RUN=RUNS\nENQ_SUBJECT=jobs.in\n").poolNames()
        #expect(names.statePrefix == "p2.gpu.task.state")
        #expect(names.jobsStream == "P2_JOBS")
        #expect(names.runStream == "RUNS")
        #expect(names.enqueueSubject == "jobs.in")
        #expect(try load().poolNames() == PoolNames())
    }

    @Test(arguments: [
        ("STATE_PREFIX=gpu.task\n", "STATE_PREFIX: the subjects gpu.task"),
        ("RESULT_PREFIX=gpu.task.state.x\n", "RESULT_PREFIX: the subjects"),
        ("ENQ_SUBJECT=maestro.api.submit\n", "ENQ_SUBJECT: the subjects maestro.api.submit and maestro overlap"),
        ("STREAM_RUN=ORG_WQ\n", "STREAM_RUN: the stream ORG_WQ is STREAM_WQ's already"),
    ])
    func overlappingNamesAreRefused(_ text: String, _ expected: String) throws {
        let settings = try load(text)
        let error = #expect(throws: SettingsError.self) { try settings.poolNames() }
        #expect(error?.description.hasPrefix(expected) == true, "\(String(describing: error))")
    }

    @Test(arguments: ["ENQ_SUBJECT=a.*\n", "ENQ_SUBJECT=a..b\n", "SUBJECT_PREFIX=>\n", "STREAM_WQ=a.b\n"])
    func wildcardsAreNoNames(_ text: String) {
        #expect(throws: SettingsError.self) { try load(text) }
    }

    @Test func credentialsComeInPairs() throws {
        let seed = try load("NATS_NKEY_SEED_FILE=/s\n")
        #expect(throws: SettingsError.self) { try seed.checkConnection() }
        let certificate = try load("NATS_TLS_CERT=/c\n")
        #expect(throws: SettingsError.self) { try certificate.checkConnection() }
        try load("NATS_TLS_CERT=/c\nNATS_TLS_KEY=/k\n").checkConnection()
    }
}

@Suite("Server addresses")
struct ServerURLTests {
    @Test(arguments: [
        ("host", "nats://host"), ("nats://h:4222/", "nats://h:4222"), ("TLS://u:p@h:1", "tls://u:p@h:1"),
        ("nats://[::1]:4222", "nats://[::1]:4222"), ("10.0.0.1:4", "nats://10.0.0.1:4"),
    ])
    func accepts(_ text: String, _ expected: String) throws {
        #expect(try ServerURL(text).text == expected)
    }

    @Test(arguments: ["", "nats://", "http://h", "h:0", "h:70000", "h:x", "nats://:4222", "a b", "h/x", "[::1]4"])
    func refuses(_ text: String) {
        #expect(throws: SettingProblem.self) { try ServerURL(text) }
    }

    @Test func neverShowsASecret() throws {
        #expect(try ServerURL("nats://u:p/w@h:1").description == "nats://***@h:1")
        #expect(Secrets.masked("to nats://a:b@h,tls://t@g and x@y") == "to nats://***@h,tls://***@g and x@y")
    }

    @Test(arguments: [
        ("nats://u:p@h:1", "h", "1"), ("h", "h", "4222"), ("tls://[::1]:5", "::1", "5"), ("[::1]", "::1", "4222"),
    ])
    func theEndpointIsHostAndPort(_ text: String, _ host: String, _ port: String) throws {
        let endpoint = try ServerURL(text).endpoint
        #expect(endpoint == (host, port))
    }

    @Test(arguments: [
        ("INFO {\"auth_required\":true,\"max_payload\":1}", ServerProbe.Finding.wantsCredentials),
        ("INFO {\"tls_required\":true}", .wantsTLS), ("INFO {}", .open), ("SSH-2.0", .notNATS), ("", .notNATS),
    ])
    func theServersIntroductionIsUnderstood(_ text: String, _ finding: ServerProbe.Finding) {
        #expect(ServerProbe.finding(in: text) == finding)
    }

    @Test func aPortWithoutServerIsUnreachable() async throws {
        #expect(await ServerProbe.look(at: try ServerURL("nats://127.0.0.1:1")) == .unreachable("Connection refused"))
    }
}
