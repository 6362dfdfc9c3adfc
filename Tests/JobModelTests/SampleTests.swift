import Foundation
import Testing
import WireJSON

import JobModel

/// Stored data of every version is read for ever: see Samples/README.md.
@Suite("Stored samples") struct SampleTests {
    private static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Samples/v1")

    private func bytes(_ name: String) throws -> [UInt8] {
        Array(try Data(contentsOf: Self.folder.appending(path: name + ".json")))
    }

    private static func names(_ prefix: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasPrefix(prefix) }
            .map { String($0.dropLast(".json".count)) }.sorted()
    }

    private func json(_ name: String) throws -> JSON { try JSON(parsing: bytes(name)) }

    @Test(arguments: [
        ("enqueued", JobState.enqueued, 0, 0), ("enqueued-lost", .enqueued, 1, 1), ("waiting_gpu", .waitingGPU, 0, 0),
        ("scheduled", .scheduled, 0, 0), ("scheduled-lost", .scheduled, 1, 1), ("running", .running, 1, 0),
        ("running-fenced", .running, 1, 0), ("running-fenced-lost", .running, 2, 1), ("done-retried", .done, 2, 0),
        ("running-lost", .running, 2, 1), ("running-cancel-requested", .running, 1, 0), ("retry", .retry, 1, 0),
        ("done", .done, 1, 0), ("done-lost", .done, 2, 1), ("done-named", .done, 1, 0), ("failed", .failed, 2, 0),
        ("cancelled", .cancelled, 1, 0), ("cancelled-without-task", .cancelled, 0, 0),
        ("rejected-without-task", .rejected, 0, 0),
    ])
    func records(_ name: String, _ state: JobState, _ tries: Int, _ lost: Int) throws {
        let stored = try bytes("record-" + name)
        let record = try JobRecord(parsing: stored)
        #expect((record.state, record.tries, record.lost) == (state, tries, lost))
        #expect(record.submission.isEmpty == name.hasSuffix("without-task"))
        #expect(record.cancelRequested == (name == "running-cancel-requested"))
        if !record.submission.isEmpty { #expect(try record.task().command.type.isEmpty == false) }
        // Rewritten, it says the same: no field is lost.
        let again = record.encoded()
        #expect(try JobRecord(parsing: again) == record)
        let keys = try [again, stored].map { Set(try JSONFields(parsing: $0).fields.map(\.key)) }
        #expect(keys[0] == keys[1])
    }

    @Test func everyRecordIsInTheTable() throws {
        #expect(try Self.names("record-").count == 19)
        let states = try Self.names("record-").map { try JobRecord(parsing: bytes($0)).state }
        #expect(Set(states) == Set(JobState.allCases))
    }

    @Test func whatARecordSaysOfItsAttempts() throws {
        let retry = try JobRecord(parsing: bytes("record-retry"))
        #expect(retry.retryDelay.map { $0 > .zero } == true)
        #expect(retry.outcome?.code == .exit)
        #expect(retry.outcome?.returnCode == 3)
        #expect(retry.outcome?.standardErrorTail == "no\n")
        let named = try JobRecord(parsing: bytes("record-done-named"))
        #expect(named.gpu?.text == "rig1-1")
        let running = try JobRecord(parsing: bytes("record-running"))
        #expect(running.attempt != nil && running.owner != nil && running.gpu == GPUID("0"))
        #expect(running.limits.maxWait == .seconds(3600))
        let fenced = try JobRecord(parsing: bytes("record-running-fenced-lost"))
        #expect(fenced.limits.fence == Fence(.seconds(5)))
        #expect(fenced.lostAttempts.count == 1 && fenced.failedAttempts.isEmpty)
        #expect(try JobRecord(parsing: bytes("record-done-retried")).failedAttempts.count == 1)
    }

    @Test func tasks() throws {
        let full = try JobTask(submission: bytes("task-full"))
        #expect(full.id?.text == "all")
        #expect(full.environment == [JobTask.Variable(name: "A", value: "1")])
        #expect((full.timeout, full.maxWait) == (.seconds(60), .seconds(3600)))
        #expect((full.maxRetries, full.priority) == (1, 5))
        #expect(full.submittedAt != nil)
        #expect(try JobTask(submission: bytes("task-shell")).command == .shell("echo no >&2; exit 3"))
        #expect(try JobTask(submission: bytes("task-least")).command == .arguments(["true"]))
    }

    @Test func aRunMessage() throws {
        let run = try RunMessage(parsing: bytes("run"), enqueueSubject: "gpu.task.enqueue")
        #expect(run.record.state == .scheduled)
        #expect(run.attempt != nil && run.sequence > 0)
    }

    @Test func controlRecords() throws {
        let lease = try LeaderLease(parsing: bytes("lease"))
        #expect(lease.duration == .seconds(2) && !lease.isReleased && lease.processID > 0)
        for (name, isReleased) in [
            ("registration", false), ("registration-named", false), ("registration-released", true),
            ("registration-facts", false),
        ] {
            let registration = try WorkerRegistration(parsing: bytes(name))
            #expect(registration.isReleased == isReleased)
            #expect(registration.facts.isEmpty == (name != "registration-facts"))
            #expect(!registration.host.isEmpty && !registration.bootID.isEmpty && registration.processID > 0)
        }
        #expect(try ResultsPlace(parsing: bytes("results-place")).through == 18)
        let control = try CardControl(parsing: bytes("card-control"))
        #expect(control.cordon?.reason == "new fan" && control.drain?.delay == .seconds(300))
        #expect(control.quarantine?.kind == .failures && control.quarantine?.pause == .seconds(60))
        #expect(control.quarantine?.strikes == 2 && control.probation?.strikes == 1)
    }

    @Test func messagesOfWorkers() throws {
        let heartbeat = try Heartbeat(parsing: bytes("worker-heartbeat"))
        #expect(heartbeat.running.map(\.job.text) == ["long"])
        #expect(heartbeat.counter > 0 && heartbeat.slots == 1)
        #expect(try CardReading(parsing: bytes("worker-metrics")).temperature == nil)
        let reading = try CardReading(parsing: bytes("worker-metrics-card"))
        #expect((reading.gpu.text, reading.busyPercent, reading.temperature) == ("rig1-1", 37, 61))
        #expect((reading.pci, reading.model) == ("0000:02:00.0", "NVIDIA GeForce GTX 1660"))
        #expect((reading.power, reading.powerCap) == (71, 120))
        #expect((reading.vramUsedBytes, reading.vramTotalBytes) == (536_870_912, 6_442_450_944))
        let held = try CardReading(parsing: bytes("worker-metrics-held"))
        #expect(held.hold == CardHold(.unhealthy, reason: "NVML 15: GPU is lost") && held.temperatureLimit == 78)
        #expect(held.health.count == 1)
        for name in ["worker-up", "worker-up-card", "worker-down"] {
            #expect(try WorkerNotice(parsing: bytes(name)).incarnation.text.isEmpty == false)
        }
        let chunk = try LogChunk(parsing: bytes("log"))
        #expect(chunk.stream == .standardOutput && !chunk.text.isEmpty)
    }

    @Test func aReportThatAWorkerKept() throws {
        let report = try AttemptReport(journal: json("journal-reported"))
        #expect(report.ran && report.outcome.code == .exit && report.outcome.returnCode == 3)
        #expect(report.standardError.text == "no\n" && report.standardError.totalBytes == 3)
    }

    /// Events that only people and other clients read keep the fields that PROTOCOL.md names.
    @Test(arguments: [
        ("done", ["task_id", "gpu_id", "attempt_id", "tries", "returncode", "stdout", "stderr", "cwd", "type", "ts"]),
        (
            "err-exit",
            ["task_id", "gpu_id", "error", "code", "attempt_id", "tries", "state", "will_retry", "data", "ts"]
        ),
        ("err-bad_task", ["task_id", "gpu_id", "error", "code", "state", "ts"]),
        ("err-cancelled", ["task_id", "code", "data"]), ("err-lost", ["task_id", "code", "attempt_id", "will_retry"]),
        ("result-done", ["task_id", "ok", "state", "tries", "data", "ts"]),
        ("result-failed", ["task_id", "ok", "state", "error", "code", "data"]),
        ("result-cancelled", ["task_id", "ok", "state", "error", "code", "data"]),
        ("result-rejected", ["task_id", "ok", "state", "error", "code"]),
        ("worker-log", ["gpu_id", "incarnation", "level", "message", "ts"]),
        ("maestro-up", ["incarnation", "host", "pid", "version", "ts"]),
        ("maestro-heartbeat", ["alive", "gpus_seen", "qsize", "inflight", "incarnation", "ts"]),
        ("maestro-state-leading", ["event", "gpus_alive", "qsize", "inflight", "ts"]),
        ("maestro-state-gpu_up", ["event", "gpu_id"]), ("maestro-state-gpu_gone", ["event", "gpu_id", "reason"]),
        ("journal-attempt", ["task_id", "attempt_id", "tries"]), ("journal-process", ["pid", "started", "boot_id"]),
    ])
    func events(_ name: String, _ fields: [String]) throws {
        let json = try json(name)
        for field in fields { #expect(json[field] != nil, "\(field)") }
    }
}

/// What a newer program wrote is left alone, with a text that says so.
@Suite("Versions of the format") struct FormatVersionTests {
    private func newer(_ name: String, _ version: String = "2") throws -> [UInt8] {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Samples/v1/\(name).json")
        guard case .object(var object) = try JSON(parsing: Array(try Data(contentsOf: file))) else { return [] }
        object["v"] = .number(version)
        return JSON.object(object).encoded()
    }

    private func expectRefusal(_ name: String, _ parse: ([UInt8]) throws -> Void) throws {
        let error = #expect(throws: MalformedMessage.self) { try parse(newer(name)) }
        let words = "its format is version 2, and this program reads up to version 1; upgrade this program"
        #expect(error?.description.contains(words) == true, "\(name)")
    }

    @Test func aNewerVersionIsRefusedByWhatItIs() throws {
        try expectRefusal("record-done") { _ = try JobRecord(parsing: $0) }
        try expectRefusal("run") { _ = try RunMessage(parsing: $0, enqueueSubject: "q") }
        try expectRefusal("lease") { _ = try LeaderLease(parsing: $0) }
        try expectRefusal("registration") { _ = try WorkerRegistration(parsing: $0) }
        try expectRefusal("results-place") { _ = try ResultsPlace(parsing: $0) }
        try expectRefusal("worker-heartbeat") { _ = try Heartbeat(parsing: $0) }
        try expectRefusal("worker-metrics") { _ = try CardReading(parsing: $0) }
        try expectRefusal("log") { _ = try LogChunk(parsing: $0) }
    }

    @Test func aNewerTaskIsRefusedWithItsID() throws {
        let error = #expect(throws: TaskRefusal.self) { try JobTask(submission: newer("task-full")) }
        #expect(error?.code == .badTask)
        #expect(error?.id?.text == "all")
        #expect(error?.reason.contains("version 2") == true)
    }

    /// `v` was no field of tasks in version 1: what stands there may be anybody's.
    @Test func aTaskMayHoldAnythingElseUnderThatName() throws {
        let task = try JobTask(submission: Array(#"{"cmd":["true"],"v":"blue"}"#.utf8))
        #expect(task.command == .arguments(["true"]))
    }

    @Test(arguments: ["0", "-1", "1.5"])
    func nonsenseIsNoVersion(_ version: String) throws {
        #expect(throws: MalformedMessage.self) { try JobRecord(parsing: newer("record-done", version)) }
    }
}
