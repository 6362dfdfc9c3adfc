import Glibc
import JobModel
import JobTransport
import ServiceSupport
import Testing

@testable import MaestroCtl

/// A journal in a directory of its own that is removed with the test.
final class TestJournal {
    let directory = "/tmp/maestroctl-journal-\(UInt64.random(in: 0 ... .max))/deep"
    let journal: SubmissionJournal

    init() { journal = SubmissionJournal(directory: directory, pool: "localhost_4222.ORG_WQ") }

    deinit {
        for suffix in ["", ".new"] { unlink(journal.path + suffix) }
        rmdir(directory)
        rmdir(String(directory.dropLast("/deep".count)))
    }

    /// Puts bytes behind what the file holds, as a crash or another program would.
    func damage(_ text: String) throws {
        let file = try #require(fopen(journal.path, "a"))
        defer { fclose(file) }
        #expect(fputs(text, file) >= 0)
    }
}

@Suite("The journal of submissions")
struct JournalTests {
    private func submission(_ id: String, _ program: String = "true") throws -> Submission {
        Submission(id: try #require(JobID(id)), exactly: Array(#"{"task_id":"\#(id)","cmd":["\#(program)"]}"#.utf8))
    }

    private func ids(_ journal: SubmissionJournal) throws -> [String] {
        try journal.read().entries.map(\.submission.id.text)
    }

    @Test(arguments: ["{\"a\":\"ü\\u0000\u{7F}\\\\\"}", "{\n \"pretty\" : \"\u{2028}\" }\r\n", "{\"e\u{301}\":1}"])
    func everyByteOfATaskComesBack(_ text: String) throws {
        let bytes = Array(text.utf8)
        let entry = JournalEntry(submission: Submission(id: try #require(JobID("a")), exactly: bytes), time: 1.25)
        let line = entry.line()
        #expect(!line.contains(UInt8(ascii: "\n")))
        #expect(JournalLine(parsing: line) == .submitted(entry))
    }

    @Test func whatIsAppendedIsReadInItsOrderUntilItHasEnded() throws {
        let test = TestJournal()
        #expect(try test.journal.read().entries.isEmpty)
        try test.journal.append([submission("b"), submission("a")], at: 5)
        try test.journal.append([submission("c"), submission("a")], at: 6)
        #expect(try ids(test.journal) == ["b", "a", "c"])
        // The second try of a counts from the first.
        #expect(try test.journal.read().entries.map(\.time) == [5, 5, 6])
        try test.journal.noteEnded([#require(JobID("a"))])
        #expect(try ids(test.journal) == ["b", "c"])
        let b = try submission("b")
        try test.journal.forget { $0 == b }
        #expect(try ids(test.journal) == ["c"])
        try test.journal.forget { _ in true }
        #expect(access(test.journal.path, F_OK) != 0, "a journal that holds nothing is removed")
        try test.journal.append([submission("d")], at: 7)
        #expect(try ids(test.journal) == ["d"])
    }

    @Test func aRefusalTakesBackTheTaskThatWasRefusedAlone() throws {
        let test = TestJournal()
        try test.journal.append([submission("a"), submission("a", "false")], at: 1)
        try test.journal.noteRefused([submission("a", "false")])
        #expect(try test.journal.read().entries.map(\.submission) == [submission("a")])
    }

    /// A large journal is not rewritten for one job.
    @Test func notesAreAddedToALargeJournal() throws {
        let test = TestJournal()
        let bulk = String(repeating: "x", count: 100_000)
        let large = try (0..<20).map { try submission("job-\($0)", bulk) }
        try test.journal.append(large, at: 1)
        let before = test.journal.size
        try test.journal.noteEnded([#require(JobID("job-3")), #require(JobID("job-4"))])
        try test.journal.noteRefused([large[7]])
        #expect(test.journal.size > before)
        #expect(try test.journal.read().entries.count == 17)
        try test.journal.forget { _ in false }
        #expect(test.journal.size < before)
        #expect(try test.journal.read().cleanedBytes > 1_600_000)
        #expect(try test.journal.read().entries.count == 17)
    }

    @Test func aHalfLineOfACrashHarmsNoOther() throws {
        let test = TestJournal()
        try test.journal.append([submission("a")], at: 1)
        try test.damage(#"{"v":1,"at":2,"task_id":"b","ta"#)
        try test.journal.append([submission("c")], at: 3)
        #expect(try ids(test.journal) == ["a", "c"])
        #expect(try test.journal.read().unreadable == 1)
    }

    @Test func linesOfANewerVersionAreLeftAlone() throws {
        let test = TestJournal()
        try test.journal.append([submission("a")], at: 1)
        let line = #"{"v":2,"task_id":"b","how":"unknown"}"#
        try test.damage(line + "\n")
        try test.journal.forget { _ in true }
        let contents = try test.journal.read()
        #expect(contents.entries.isEmpty)
        #expect(contents.newerLines == 1)
        let bytes = try FileContents.read(test.journal.path, limit: 10_000)
        #expect(String(decoding: bytes, as: UTF8.self).contains(line))
    }

    @Test func manyWriteWhileOneCleansUp() async throws {
        let test = TestJournal()
        let journal = test.journal
        let forgotten = try (0..<200).map { try submission("old-\($0)") }
        try journal.append(forgotten, at: 1)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<4 {
                group.addTask {
                    for number in 0..<25 { try journal.append([submission("new-\(writer)-\(number)")], at: 2) }
                }
            }
            group.addTask {
                for part in 0..<10 {
                    let some = Set(forgotten[(part * 20)..<(part * 20 + 20)])
                    try journal.forget { some.contains($0) }
                }
            }
            try await group.waitForAll()
        }
        #expect(Set(try ids(journal)).count == 100)
        #expect(try journal.read().unreadable == 0)
    }

    @Test func aNamedJournalMustWorkAndAnotherMayFail() throws {
        let broken = SubmissionJournal(directory: "/proc/no-such-place", pool: "p")
        let wished = #expect(throws: FatalError.self) {
            try JournalKeeper(broken, isWished: true).keep([submission("a")])
        }
        #expect(wished?.message.contains("/proc") == true)
        let keeper = JournalKeeper(broken, isWished: false)
        try keeper.keep([submission("a")])
        try keeper.keep([submission("b")])
    }

    @Test func eachPoolHasItsOwn() throws {
        let names = PoolNames()
        func pool(_ urls: String...) throws -> String {
            SubmissionJournal.pool(try urls.map { try ServerURL($0) }, names)
        }
        #expect(try pool("nats://127.0.0.1:4222") == pool("localhost"))
        #expect(try pool("nats://a:1", "b:2") == pool("b:2", "user:secret@a:1"))
        #expect(try pool("nats://a:1") != pool("nats://a:2"))
        #expect(try !pool("nats://user:secret@a:1").contains("secret"))
        #expect(try pool("a") != SubmissionJournal.pool([ServerURL("a")], PoolNames(streamPrefix: "OTHER")))
        let ipv6 = try pool("tls://[::2]:1")
        #expect(ipv6.allSatisfy { $0.isLetter || $0.isNumber || "._-".contains($0) })
    }

    @Test func aFileOfTasksIsWrittenDownInFewGroups() throws {
        let test = TestJournal()
        let path = test.directory + ".tasks"
        try PoolDirectory.make(test.directory)
        let file = try #require(fopen(path, "w"))
        for number in 0..<10_000 { #expect(fputs("{\"task_id\":\"job-\(number)\",\"cmd\":[\"true\"]}\n", file) >= 0) }
        #expect(fputs("no task\n", file) >= 0)
        fclose(file)
        defer { unlink(path) }
        var source = IdentifierSource(seed: 1)
        let keeper = JournalKeeper(test.journal, isWished: true)
        let tasks = FileSubmission.Tasks(lines: try LineReader(path), source: &source)
        var handedOn = 0
        var written: Set<UInt64> = []
        for task in JournalledTasks(tasks, keeper) {
            guard case .success(let submission) = task else {
                #expect(handedOn == 10_000)
                continue
            }
            #expect(submission.id.text == "job-\(handedOn)")
            written.insert(test.journal.size)
            handedOn += 1
        }
        #expect(handedOn == 10_000)
        #expect(try test.journal.read().entries.count == 10_000)
        #expect(written.count < 50, "groups")
    }
}
