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
        let entries = try journal().recover()
        #expect(entries.map(\.attemptID) == ["a", "b", "c"])
        #expect(entries.map { $0.attempt?["n"] } == [1, 2, 3])
        #expect(entries.map(\.process) == [nil, process, nil])
        #expect(entries.map(\.report) == [nil, nil, ["ok": true]])
        #expect(entries.flatMap(\.damage).isEmpty)
    }

    @Test(arguments: ["", "{\"n\":", "\0\0\0\0", "{} {}", "\u{FEFF}", String(repeating: "[", count: 100_000)])
    func aDamagedFileIsToldAndNothingElseIsLost(_ garbage: String) throws {
        let journal = try journal()
        for name in ["a", "b"] {
            _ = try journal.begin(attemptID: name, document: Array("{}".utf8))
            try journal.report(Array("{}".utf8), attemptID: name)
        }
        let place = temporary.path + "/log/gpu0"
        try write(garbage, to: place + "/a/attempt.json")
        try write(garbage, to: place + "/a/report.json")
        try write("{\"pid\":1}", to: place + "/a/process.json")
        try write(garbage, to: place + "/stray-file")
        let entries = try journal.recover()
        #expect(entries.map(\.attemptID) == ["a", "b"])
        #expect(entries[0].attempt == nil && entries[0].report == nil && entries[0].process == nil)
        #expect(entries[0].damage.count == 3)
        #expect(entries[1].damage.isEmpty && entries[1].report == [:])
    }

    @Test func somethingElseUnderTheNameOfAFileIsDamage() throws {
        let journal = try journal()
        _ = try journal.begin(attemptID: "a", document: Array("{}".utf8))
        let place = temporary.path + "/log/gpu0/a"
        mkfifo(place + "/report.json", 0o644)
        symlink("/etc/passwd", place + "/process.json")
        mkdir(temporary.path + "/log/gpu0/empty", 0o755)
        let entries = try journal.recover()
        #expect(entries.map(\.damage.count) == [2, 1])
    }

    @Test func onlyClosedAttemptsArePruned() throws {
        let limits = PruneLimits(age: .seconds(60), count: 1, bytes: 1 << 40)
        let journal = try journal(limits)
        for (index, name) in ["a", "b", "c", "d"].enumerated() {
            let files = try journal.begin(attemptID: name, document: Array("{}".utf8))
            try write("output", to: files.stdout)
            if name != "a" { try journal.close(attemptID: name, at: Double(index)) }
        }
        #expect(journal.prune(at: 10).isEmpty)
        #expect(try Directory(path: journal.root).names().sorted() == ["a", "d"])
        // A new life knows the closed ones again; their age is the files' own.
        let next = try self.journal(PruneLimits(age: .seconds(60), count: 0, bytes: 0))
        #expect(try next.recover().map(\.attemptID) == ["a"])
        #expect(next.prune(at: 10).isEmpty)
        #expect(try Directory(path: journal.root).names() == ["a"])
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
