import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import Testing
import WireJSON

@testable import MaestroCtl

/// What the doctor makes of facts that no test can bring about: old servers, wrong clocks, clusters that fall apart.
@Suite("The doctor's judgement")
struct DoctorTests {
    private let now = 1_700_000_000.0
    private let names = PoolNames()

    private func codes(_ findings: [Finding]) -> [String] { findings.map(\.code) }

    private func server(_ version: String, offset: Double = 0) -> ServerFact {
        ServerFact(name: "n-\(version)", id: version, version: version, hasJetStream: true, clockOffset: offset)
    }

    private func facts(_ servers: ServerFact...) -> PoolFacts {
        var facts = PoolFacts()
        facts.servers = servers
        return facts
    }

    // MARK: servers

    @Test(arguments: [("2.9.10", true), ("2.10.27", true), ("2.11.0", false), ("2.14.0", false)])
    func replicasNeedAServerThatCanCompareAndSet(_ version: String, _ isWrong: Bool) throws {
        let three = ServerExam.judge(facts(server(version)), replicas: 3)
        #expect(codes(three) == (isWrong ? ["replicas_unsafe"] : []))
        let one = ServerExam.judge(facts(server(version)), replicas: 1)
        #expect(codes(one) == ["sync_interval"])
        #expect(one.allSatisfy { !$0.isWrong })
        let advice = try #require(one.first?.advice)
        #expect(advice.contains("sync_interval: always"))
        #expect(advice.hasPrefix("upgrade to 2.10") == (version == "2.9.10"))
    }

    @Test func aServerThatSyncsOftenNeedsNoAdvice() throws {
        func monitor(_ config: String) throws -> ServerMonitor? {
            ServerMonitor(try JSON(parsing: Array(#"{"server_id":"a","config":{\#(config)}}"#.utf8)))
        }
        var pool = facts(server("2.14.0"))
        pool.monitor = try monitor(#""sync_interval":120000000000"#)
        #expect(ServerExam.judge(pool, replicas: 1).first?.evidence == "sync_interval is 2m00s")
        pool.monitor = try monitor(#""sync_interval":5000000000"#)
        #expect(ServerExam.judge(pool, replicas: 1).isEmpty)
        pool.monitor = try monitor(#""sync_interval":120000000000,"sync_always":true"#)
        #expect(ServerExam.judge(pool, replicas: 1).isEmpty)
    }

    @Test func clocksVersionsAndAnOldServerAreTold() {
        let findings = ServerExam.judge(facts(server("2.14.0", offset: -7.5), server("2.8.4")), replicas: 3)
        #expect(Set(codes(findings)) == ["clock_differs", "version_too_old", "replicas_unsafe", "mixed_versions"])
        #expect(findings.first { $0.code == "clock_differs" }?.what.contains("7.50s") == true)
        #expect(codes(ServerExam.judge(facts(), replicas: 3)) == ["version_unknown"])
    }

    @Test func anAccountLimitIsUnsafeOnOldServersAndABoundOnOthers() {
        var old = facts(server("2.9.10"))
        old.account = ["storage": 10, "limits": ["max_storage": 1000]]
        #expect(codes(ServerExam.judge(old, replicas: 3)).contains("account_limit_unsafe"))
        var recent = facts(server("2.14.0"))
        recent.account = ["storage": 100, "limits": ["max_storage": 1000]]
        #expect(ServerExam.judge(recent, replicas: 3).isEmpty)
        recent.account = ["storage": 900, "limits": ["max_storage": 1000]]
        #expect(ServerExam.judge(recent, replicas: 3).map(\.severity) == [.warning])
        recent.account = ["storage": 990, "limits": ["max_storage": 1000]]
        #expect(ServerExam.judge(recent, replicas: 3).map(\.severity) == [.error])
        recent.account = ["storage": 990, "limits": ["max_storage": -1]]
        #expect(ServerExam.judge(recent, replicas: 3).isEmpty)
    }

    @Test func theMonitorsAnswerIsReadFromHTTP() {
        func body(_ text: String) -> [UInt8]? { PlainHTTP.body(of: Array(text.utf8)) }
        #expect(body("HTTP/1.0 200 OK\r\nContent-Type: x\r\n\r\n{}") == Array("{}".utf8))
        #expect(body("HTTP/1.1 404 Not Found\r\n\r\n{}") == nil)
        #expect(body("SSH-2.0-OpenSSH\r\n") == nil)
        #expect(body("") == nil)
    }

    // MARK: streams

    /// A stream as the server would describe it.
    private func stream(_ name: String, _ config: JSONObject, cluster: JSON? = nil, last: Int = 9) throws -> StreamInfo
    {
        var all = JSONObject([
            ("name", .string(name)), ("retention", "limits"), ("storage", "file"), ("discard", "new"),
            ("max_msgs_per_subject", 1), ("max_age", 0), ("max_bytes", 1000), ("num_replicas", 1),
        ])
        for field in config { all[field.key] = field.value }
        let state: JSON = ["messages": 5, "bytes": 500, "first_seq": 1, "last_seq": .int(last), "consumer_count": 1]
        var json = JSONObject([("config", .object(all)), ("state", state)])
        json["cluster"] = cluster
        let text = JSON.object(json).encoded()
        return try #require(StreamInfo(try JSON(parsing: text)))
    }

    private func records(_ more: JSONObject = [:], cluster: JSON? = nil) throws -> PoolFacts {
        var pool = facts(server("2.14.0"))
        var config = more
        config["subjects"] = ["gpu.task.state.*"]
        pool.streams[names.jobsStream] = try stream(names.jobsStream, config, cluster: cluster)
        return pool
    }

    private func ofRecords(_ pool: PoolFacts) -> [Finding] {
        StreamExam.judge(pool, names).filter { $0.code != "stream_missing" }
    }

    @Test func aStreamInOrderIsNoFinding() throws {
        #expect(try ofRecords(records()).isEmpty)
        #expect(codes(StreamExam.judge(PoolFacts(), names)) == ["no_pool"])
    }

    @Test(arguments: [(799, []), (620, ["stream_full"]), (510, ["stream_full"])] as [(Int, [String])])
    func fillIsToldFromFourFifthsOn(_ most: Int, _ expected: [String]) throws {
        let findings = try ofRecords(records(["max_bytes": .int(most)]))
        #expect(codes(findings) == expected)
        #expect(findings.first?.severity == (most == 510 ? .error : most == 620 ? .warning : nil))
    }

    @Test func aStreamWithoutABoundOrOfAnotherLayoutIsTold() throws {
        #expect(try codes(ofRecords(records(["max_bytes": -1]))) == ["stream_unbounded"])
        let aged = try ofRecords(records(["max_age": 3600]))
        #expect(codes(aged) == ["stream_differs"])
        #expect(aged.first?.evidence.contains("max_age") == true)
    }

    @Test func copiesThatAreGoneOrBehindAreTold() throws {
        let cluster: JSON = [
            "leader": "a",
            "replicas": [
                ["name": "b", "current": true, "lag": 0], ["name": "c", "current": false, "offline": true, "lag": 12],
            ],
        ]
        let pool = try records(["num_replicas": 3], cluster: cluster)
        let findings = ofRecords(pool)
        #expect(codes(findings) == ["replica_behind"])
        #expect(findings.first?.evidence == "on c, lag 12")
        #expect(StreamExam.replicas(pool) == 3)
        let headless = try ofRecords(records(["num_replicas": 3], cluster: ["replicas": []]))
        #expect(codes(headless) == ["stream_leaderless"])
    }

    // MARK: consumers

    private func consumer(_ fields: JSONObject, config more: JSONObject = [:]) throws -> ConsumerInfo {
        var config = JSONObject([
            ("durable_name", "MAESTRO_ENQ"), ("ack_policy", "explicit"), ("max_deliver", -1),
            ("filter_subject", "gpu.task.enqueue"),
        ])
        for field in more { config[field.key] = field.value }
        var json = JSONObject([("stream_name", "ORG_WQ"), ("name", "MAESTRO_ENQ"), ("config", .object(config))])
        for field in fields { json[field.key] = field.value }
        return try #require(ConsumerInfo(try JSON(parsing: JSON.object(json).encoded())))
    }

    private func led(isFull: Bool = false) throws -> PoolFacts {
        var pool = facts(server("2.14.0"))
        pool.leader = MaestroAPI.Status(["version": .string(ProgramVersion.text), "queue_full": .bool(isFull)])
        pool.streams["ORG_WQ"] = try stream("ORG_WQ", [:], last: 9)
        pool.streams["ORG_RUN"] = try stream("ORG_RUN", [:], last: 9)
        return pool
    }

    private func judge(_ consumers: [ConsumerInfo], later: ConsumerInfo? = nil, _ pool: PoolFacts) -> [Finding] {
        var facts = ConsumerExam.Facts()
        facts.consumers = consumers
        facts.ends = ["ORG_WQ": 11, "ORG_RUN": 9]
        if let later { facts.later["ORG_WQ MAESTRO_ENQ"] = later }
        return ConsumerExam.judge(facts, pool, names, now: now)
    }

    @Test func aConsumerBehindTheEndOfItsStreamIsMadeAnew() throws {
        let ahead = try consumer(["delivered": ["stream_seq": 12, "consumer_seq": 3]])
        let findings = try judge([ahead], led())
        #expect(codes(findings) == ["consumer_ahead"])
        #expect(findings.first?.repair == .remakeConsumer(stream: "ORG_WQ", name: "MAESTRO_ENQ"))
        // The stream ended at 9 when it was looked at first, and has grown since.
        #expect(try judge([consumer(["delivered": ["stream_seq": 11]])], led()).isEmpty)
    }

    @Test func aConsumerThatNobodyPullsFromIsStuckOnlyWhenItStaysSo() throws {
        let waiting = try consumer(["num_pending": 4, "num_waiting": 0, "delivered": ["stream_seq": 5]])
        let moved = try consumer(["num_pending": 3, "num_waiting": 0, "delivered": ["stream_seq": 6]])
        let pulled = try consumer(["num_pending": 4, "num_waiting": 1, "delivered": ["stream_seq": 5]])
        #expect(try codes(judge([waiting], later: waiting, led())) == ["consumer_stuck"])
        #expect(try judge([waiting], later: moved, led()).isEmpty)
        #expect(try judge([waiting], later: pulled, led()).isEmpty)
        #expect(try judge([waiting], later: waiting, led(isFull: true)).isEmpty, "a full queue is to wait")
    }

    @Test func whatIsMissingIsMissedOnlyWhereItsOwnerLives() throws {
        #expect(try codes(judge([], led())) == ["consumer_missing"])
        var nobody = try led()
        nobody.leader = nil
        #expect(judge([], nobody).isEmpty)
    }

    // MARK: workers

    private func registration(_ gpu: GPUID, _ life: Incarnation) throws -> WorkerRegistration {
        let text = #"{"gpu_id":0,"incarnation":"\#(life)","host":"rig","boot_id":"b","pid":7,"op":"o"}"#
        return try WorkerRegistration(parsing: Array(text.utf8))
    }

    private func heartbeat(_ gpu: GPUID, _ life: Incarnation, secondsAgo: Double, clock: Double = 0) -> HeardWorker {
        let stored = now - secondsAgo
        return HeardWorker(
            heartbeat: Heartbeat(
                gpu: gpu,
                incarnation: life,
                counter: 1,
                slots: 1,
                running: [],
                isDraining: false,
                time: stored + clock
            ),
            timestamp: Int64(stored * 1e9)
        )
    }

    @Test func aWorkerIsJudgedByItsLastHeartbeat() throws {
        let gpu = try #require(GPUID("0"))
        var ids = IdentifierSource(seed: 1)
        let (life, other) = (Incarnation(from: &ids), Incarnation(from: &ids))
        var pool = PoolFacts()
        pool.registrations[gpu] = try registration(gpu, life)
        func found() -> [String] { codes(WorkerExam.judge(pool, [], now: now)) }
        #expect(found() == ["worker_silent"])
        pool.heard[life] = heartbeat(gpu, life, secondsAgo: 45)
        #expect(found() == ["worker_silent"])
        pool.heard[life] = heartbeat(gpu, life, secondsAgo: 4)
        #expect(found().isEmpty)
        pool.heard[life] = heartbeat(gpu, life, secondsAgo: 4, clock: 3700)
        #expect(found() == ["clock_differs"])
        pool.heard[life] = heartbeat(gpu, life, secondsAgo: 4)
        pool.workerVersions[gpu] = "0.0.1"
        #expect(found() == ["version_differs"])
        pool.workerVersions[gpu] = nil
        // The life before is heard for a moment longer; one that speaks after the owner is a second worker.
        pool.heard[other] = heartbeat(gpu, other, secondsAgo: 9)
        #expect(found().isEmpty)
        pool.heard[other] = heartbeat(gpu, other, secondsAgo: 1)
        #expect(found() == ["worker_stranger"])
    }

    @Test func howJobsAreHeldIsToldOnceForEachHost() throws {
        var ids = IdentifierSource(seed: 1)
        var pool = PoolFacts()
        func add(_ gpu: String, _ facts: JSONObject) throws {
            let gpu = try #require(GPUID(gpu))
            let life = Incarnation(from: &ids)
            var worker = try registration(gpu, life)
            worker.facts = facts
            pool.registrations[gpu] = worker
            pool.heard[life] = heartbeat(gpu, life, secondsAgo: 4)
        }
        try add("0", ["job_cgroups": true, "job_limits": ["memory", "pids"]])
        try add("1", [:])
        #expect(WorkerExam.judge(pool, [], now: now).isEmpty)
        try add("2", ["job_cgroups": false, "job_limits": []])
        try add("3", ["job_cgroups": false, "job_limits": []])
        try add("4", ["job_cgroups": true, "job_limits": ["pids"]])
        let findings = WorkerExam.judge(pool, [], now: now)
        #expect(codes(findings) == ["jobs_uncontained", "jobs_unlimited"])
        #expect(findings.map(\.isWrong) == [false, false])
        #expect(findings.first?.evidence.contains("cards 2 3") == true)
    }

    @Test func theServersClockIsWhatAgesAreCountedBy() throws {
        var pool = PoolFacts()
        pool.clockOffset = 3600
        #expect(pool.age(Int64((now + 3590) * 1e9), now: now) == 10)
    }

    // MARK: disks

    private func disk(free: UInt64, of total: UInt64, isReadOnly: Bool = false) -> DiskExam.Disk {
        DiskExam.Disk(purpose: "the store", path: "/s", free: free, total: total, isReadOnly: isReadOnly)
    }

    @Test func disksThatFillUpOrCannotBeWrittenAreTold() {
        func judge(_ disk: DiskExam.Disk) -> [Finding] {
            var facts = DiskExam.Facts()
            facts.disks = [disk]
            return DiskExam.judge(facts, PoolFacts())
        }
        #expect(judge(disk(free: 50 << 30, of: 100 << 30)).isEmpty)
        #expect(judge(disk(free: 4 << 30, of: 100 << 30)).map(\.severity) == [.warning])
        #expect(judge(disk(free: 100 << 20, of: 100 << 30)).map(\.severity) == [.error])
        #expect(codes(judge(disk(free: 50 << 30, of: 100 << 30, isReadOnly: true))) == ["disk_read_only"])
    }

    @Test func limitsThatSumUpToMoreThanTheDiskAreTold() throws {
        var pool = PoolFacts()
        pool.streams["ORG_JOBS"] = try stream("ORG_JOBS", ["max_bytes": 10_000_000_000])
        pool.streams["ORG_WQ"] = try stream("ORG_WQ", ["max_bytes": 5_000_000_000])
        var facts = DiskExam.Facts()
        facts.store = disk(free: 20_000_000_000, of: 30_000_000_000)
        #expect(DiskExam.judge(facts, pool).isEmpty)
        facts.store = disk(free: 12_000_000_000, of: 30_000_000_000)
        let findings = DiskExam.judge(facts, pool)
        #expect(codes(findings) == ["streams_exceed_disk"])
        #expect(findings.first?.evidence.contains("15 GB") == true)
    }

    // MARK: the report

    @Test func theReportFitsItsTerminal() {
        let long = Finding(
            .records,
            .error,
            "x",
            String(repeating: "word ", count: 40),
            evidence: String(repeating: "y", count: 300),
            advice: "do \u{1B}[2Jthis and then that, which takes more than one line of the terminal to say",
            repair: .publishResult(.derived(timestamp: 1, sequence: 2))
        )
        var diagnosis = Diagnosis()
        diagnosis.note(.server, String(repeating: "s", count: 200))
        diagnosis.note(.records, "two", [long, Finding(.records, .note, "n", "short", evidence: "", advice: "")])
        for width in [40, 80, 132] {
            let lines = diagnosis.lines(width: width, Paint(isOn: false))
            #expect(lines.allSatisfy { $0.count <= width }, "\(width)")
            #expect(!lines.joined().contains("\u{1B}"))
            #expect(lines.joined().filter { $0 == "y" }.count >= 300, "nothing is left out")
        }
        #expect(!diagnosis.isWell)
        #expect(diagnosis.json["ok"]?.boolValue == false)
        #expect(diagnosis.lines(width: 80, Paint(isOn: false)).last == "1 thing wrong")
    }

    @Test func notesAreNothingWrong() {
        var diagnosis = Diagnosis()
        diagnosis.note(.server, "s", [Finding(.server, .note, "n", "w", evidence: "e", advice: "a")])
        #expect(diagnosis.isWell)
        #expect(diagnosis.lines(width: 80, Paint(isOn: false)).last == "All is well.")
        diagnosis.note(.disk, "d", [Finding(.disk, .warning, "w", "w", evidence: "e", advice: "a")])
        #expect(!diagnosis.isWell)
        #expect(diagnosis.lines(width: 80, Paint(isOn: false)).last == "1 warning")
    }
}
