import Glibc
import Testing
import WireJSON

@testable import TaskRunner

/// What a worker writes down is there for its next life, whatever happened to the files.
struct AttemptJournalTests {
    private let temporary: TemporaryDirectory
    private let keepAll = PruneLimits(age: .seconds(1_000_000_000), count: 1000, bytes: 1 << 40)

    init() throws { temporary = try TemporaryDirectory() }

    private func journal(_ limits: PruneLimits? = nil) throws -> AttemptJournal {
        try AttemptJournal(root: temporary.path + "/log/gpu0", limits: limits ?? keepAll)
    }

    @Test func anAttemptIsReadBackAsFarAsItCame() throws {
        let process = ProcessIdentity(pid: 77, started: 1234, bootID: "boot")
        do {
            let journal = try journal()
            _ = try journal.begin(attemptID: "a", document: Array(#"{"n":1}"#.utf8))
            _ = try journal.begin(attemptID: "b", document: Array(#"{"n":2}"#.utf8))
            try journal.started(process, attemptID: "b")
            _ = try journal.begin(attemptID: "c", document: Array(#"{"n":3}"#.utf8))
            try journal.report(Array(#"{"ok":true}"#.utf8), attemptID: "c")
            for closed in ["d", "e"] { _ = try journal.begin(attemptID: closed, document: Array("{}".utf8)) }
            try journal.report(Array("{}".utf8), attemptID: "d")
            try journal.close(attemptID: "d", at: 1)
            try journal.close(attemptID: "e", at: 1)
        }
        let (entries, damage) = try journal().recover()
        #expect(damage.isEmpty)
        #expect(entries.map(\.attemptID) == ["a", "b", "c"])
        #expect(entries.map { $0.attempt?["n"] } == [1, 2, 3])
        #expect(entries.map(\.process) == [nil, process, nil])
        #expect(entries.map(\.report) == [nil, nil, ["ok": true]])
        #expect(entries.flatMap(\.damage).isEmpty)
    }

    private var place: String { temporary.path + "/log/gpu0" }

    @Test(arguments: ["{\"n\":", "\0\0\0\0", "{} {}", "{}", "\u{FEFF}", String(repeating: "[", count: 100_000)])
    func aDamagedLineIsToldAndNothingElseIsLost(_ garbage: String) throws {
        let lines = [
            #"{"attempt_id":"a","attempt":{}}"#, garbage, #"{"attempt_id":"b","report":{}}"#,
            #"{"attempt_id":"a","process":{"pid":1}}"#, #"{"attempt_id":"a","report":{}}"#, "", garbage,
        ]
        _ = try Directory(creating: place)
        try write(lines.joined(separator: "\n"), to: place + "/attempts-7.jsonl")
        try write(garbage, to: place + "/stray-file")
        let journal = try journal()
        let (entries, damage) = try journal.recover()
        #expect(damage.count == 2)
        #expect(entries.map(\.attemptID) == ["a", "b"])
        #expect(entries.map(\.attempt) == [[:], nil] && entries.map(\.report) == [[:], [:]])
        #expect(entries.map(\.damage.count) == [1, 1] && entries[0].process == nil)
        // What is added does not become a part of the torn line at the end.
        try journal.report(Array("1".utf8), attemptID: "b")
        #expect(try self.journal().recover().entries.map(\.report) == [[:], 1])
    }

    /// Files as an earlier version left them when it was killed: Samples/v1 of the job model's tests.
    @Test func attemptsOfTheOlderFormAreClosedToo() throws {
        _ = try Directory(creating: place + "/open")
        _ = try Directory(creating: place + "/closed")
        _ = try Directory(creating: place + "/torn")
        try write(#"{"task_id":"t","attempt_id":"open","tries":2}"#, to: place + "/open/attempt.json")
        try write(#"{"pid":77,"started":1234,"boot_id":"boot"}"#, to: place + "/open/process.json")
        try write(#"{"returncode":3}"#, to: place + "/open/report.json")
        try write("out", to: place + "/open/stdout")
        for file in ["attempt", "reported"] { try write("{}", to: place + "/closed/\(file).json") }
        try write("{\"task", to: place + "/torn/attempt.json")
        for _ in 0..<2 {
            let journal = try journal()
            let (entries, damage) = try journal.recover()
            #expect(damage.isEmpty)
            #expect(entries.map(\.attemptID) == ["open", "torn"])
            #expect(entries[0].attempt?["tries"] == 2 && entries[0].report == ["returncode": 3])
            #expect(entries[0].process == ProcessIdentity(pid: 77, started: 1234, bootID: "boot"))
            #expect(entries.map(\.damage.count) == [0, 1])
            #expect(try Directory(path: place + "/open").names() == ["stdout"])
        }
        let journal = try journal()
        for entry in try journal.recover().entries { try journal.close(attemptID: entry.attemptID, at: 1) }
        #expect(try self.journal().recover().entries.isEmpty)
    }

    @Test func somethingElseUnderTheNameOfASegmentIsRefused() throws {
        _ = try Directory(creating: place)
        mkfifo(place + "/attempts-0.jsonl", 0o644)
        let error = #expect(throws: TaskRunnerError.self) { try journal().recover() }
        #expect(error?.code == .file)
    }

    @Test func whatIsClosedTakesNoRoomForLong() throws {
        let journal = try AttemptJournal(root: place, limits: keepAll, segmentLimit: 1000)
        _ = try journal.begin(attemptID: "long", document: Array("{}".utf8))
        for number in 0..<200 {
            _ = try journal.begin(attemptID: "short-\(number)", document: Array("{}".utf8))
            try journal.report(Array("{}".utf8), attemptID: "short-\(number)")
            try journal.close(attemptID: "short-\(number)", at: 1)
        }
        // The segment of the one that is open, and the current one.
        #expect(try Directory(path: place).names().count <= 2)
        try journal.close(attemptID: "long", at: 1)
        #expect(try Directory(path: place).names().count == 1)
        #expect(try self.journal().recover().entries.isEmpty)
        #expect(try Directory(path: place).names().isEmpty)
    }

    @Test func attemptsOfEarlierLivesAreClosedWhereTheyStand() throws {
        for name in ["a", "b"] { _ = try journal().begin(attemptID: name, document: Array("{}".utf8)) }
        let second = try journal()
        #expect(try second.recover().entries.count == 2)
        _ = try second.begin(attemptID: "c", document: Array("{}".utf8))
        try second.close(attemptID: "a", at: 1)
        try second.synchronize(attemptID: "b")
        #expect(try journal().recover().entries.map(\.attemptID) == ["b", "c"])
    }

    @Test func onlyClosedAttemptsArePruned() throws {
        let limits = PruneLimits(age: .seconds(60), count: 1, bytes: 1 << 40)
        let journal = try journal(limits)
        for (index, name) in ["a", "b", "c", "d"].enumerated() {
            let files = try journal.begin(attemptID: name, document: Array("{}".utf8))
            mkdir(place + "/\(name)", 0o755)
            try write("output", to: files.stdout)
            if name != "a" { try journal.close(attemptID: name, at: Double(index)) }
        }
        #expect(journal.prune(at: 10).isEmpty)
        #expect(try outputs() == ["a", "d"])
        // A new life knows the closed ones again; their age is the files' own.
        let next = try self.journal(PruneLimits(age: .seconds(60), count: 0, bytes: 0))
        #expect(try next.recover().entries.map(\.attemptID) == ["a"])
        #expect(next.prune(at: 10).isEmpty)
        #expect(try outputs() == ["a"])
    }

    private func outputs() throws -> [String] {
        try Directory(path: place).names().filter { !$0.hasSuffix(".jsonl") }.sorted()
    }

    @Test func aPlaceThatCannotBeWrittenIsATypedError() throws {
        try write("", to: temporary.path + "/file")
        let error = #expect(throws: TaskRunnerError.self) {
            try AttemptJournal(root: temporary.path + "/file/gpu0", limits: keepAll)
        }
        #expect(error?.code == .file)
        #expect(throws: TaskRunnerError.self) { try journal().close(attemptID: "never-begun", at: 0) }
    }
}
