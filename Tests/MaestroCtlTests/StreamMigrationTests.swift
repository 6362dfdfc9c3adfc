import JobModel
import NATSClient
import Testing
import WireJSON

@testable import MaestroCtl

/// What is planned for streams of an older layout; that it is done, and safely, is tested in Tests/System/test_migrate.py.
@Suite struct StreamMigrationTests {
    private let names = PoolNames()

    private func stream(_ name: String, _ subjects: [String], _ settings: JSONObject) throws -> StreamInfo {
        var config = settings
        config["name"] = .string(name)
        config["subjects"] = .array(subjects.map { .string($0) })
        config["storage"] = "file"
        let state: JSON = ["messages": 1, "bytes": 1, "first_seq": 1, "last_seq": 1]
        return try #require(StreamInfo(["config": .object(config), "state": state]))
    }

    private func workQueue(_ subjects: [String]) throws -> StreamInfo {
        try stream("ORG_WQ", subjects, ["retention": "workqueue", "discard": "new", "max_age": 0])
    }

    private func message(_ text: String, subject: String = "gpu.task.run.3") -> StoredMessage {
        StoredMessage(subject: subject, sequence: 7, timestamp: 99, headers: [:], payload: Array(text.utf8))
    }

    @Test func nothingIsDoneToStreamsOfNow() throws {
        var facts = StreamMigration.Facts()
        facts.workQueue = try workQueue(["gpu.task.enqueue"])
        facts.oldestSubmission = 1_000_000
        #expect(StreamMigration(facts, names: names).steps == [])
    }

    @Test func oldSubmissionsAreStoredAgainBeforeAMaestroRefusesThem() throws {
        var facts = StreamMigration.Facts()
        facts.workQueue = try workQueue(["gpu.task.enqueue", "gpu.task.run.*"])
        facts.dispatched = ["gpu.task.run.0": 2, "gpu.task.run.1": 3]
        facts.oldestSubmission = StreamMigration.freshness + 1
        let steps = StreamMigration(facts, names: names).steps
        #expect(steps.map(\.code) == ["resubmit_runs", "refresh_submissions", "reshape"])
        #expect(steps.first == .resubmitRuns(5))
        facts.oldestSubmission = 60
        #expect(!StreamMigration(facts, names: names).steps.contains(.refreshSubmissions))
    }

    @Test func whatIsNoJobStopsIt() throws {
        var facts = StreamMigration.Facts()
        facts.workQueue = try workQueue(["gpu.task.>"])
        facts.dispatched = ["gpu.task.done": 4]
        let migration = StreamMigration(facts, names: names)
        #expect(migration.obstacles.count == 1 && migration.obstacles[0].contains("4 messages of gpu.task.done"))
    }

    @Test func aDispatchedTaskIsSubmittedAsItWas() throws {
        let plain = #"{"task_id":"a","cmd":["x"],"gpu":3,"odd":1.50}"#
        #expect(DispatchedTask(message(plain), names: names, unpin: false) == .task(JobID("a"), Array(plain.utf8)))
        let unpinned = #"{"task_id":"a","cmd":["x"],"odd":1.50}"#
        #expect(DispatchedTask(message(plain), names: names, unpin: true) == .task(JobID("a"), Array(unpinned.utf8)))
        let wrapped = #"{"gpu":3,"tries":1,"task":{"task_id":"a","cmd":["x"]}}"#
        #expect(
            DispatchedTask(message(wrapped), names: names, unpin: false)
                == .task(JobID("a"), Array(#"{"task_id":"a","cmd":["x"]}"#.utf8))
        )
        let nameless = #"{"cmd":["x"]}"#
        #expect(
            DispatchedTask(message(nameless), names: names, unpin: false)
                == .task(JobID("task-99-7"), Array(#"{"cmd":["x"],"task_id":"task-99-7"}"#.utf8))
        )
        #expect(DispatchedTask(message("nonsense"), names: names, unpin: false) == .task(nil, Array("nonsense".utf8)))
    }
}
