import ArgumentParser
import Glibc
import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import Testing
import WireJSON

@testable import MaestroCtl

@Suite("The command line as a task")
struct TaskOptionsTests {
    private func task(_ arguments: String...) throws -> String {
        let command = try #require(try Program.parseAsRoot(["submit"] + arguments) as? SubmitCommand)
        try command.what.validateCommand()
        return String(decoding: command.what.task().encoded(), as: UTF8.self)
    }

    @Test func aProgramAfterTheTerminator() throws {
        #expect(
            try task("--gpu", "3", "--", "ls", "-l", "--json") == #"{"type":"cmd","cmd":["ls","-l","--json"],"gpu":3}"#
        )
    }

    @Test func aLineForTheShell() throws {
        #expect(
            try task("--shell", "echo $HOME", "--gpu", "rig1-3")
                == #"{"type":"shell","shell":"echo $HOME","gpu":"rig1-3"}"#
        )
    }

    @Test func theLongForm() throws {
        #expect(try task("--type", "cmd", "--cmd", "ls", "-l") == #"{"type":"cmd","cmd":["ls","-l"]}"#)
        #expect(try task("--type", "shell", "--cmd", "echo hi") == #"{"type":"shell","shell":"echo hi"}"#)
    }

    @Test func everyWish() throws {
        let text = try task(
            "--task-id",
            "a",
            "--name",
            "n",
            "--cwd",
            "d",
            "--env",
            "A=1=2",
            "--env",
            "B=",
            "--timeout",
            "2m",
            "--retries",
            "0",
            "--priority=-5",
            "--max-wait",
            "1h",
            "--",
            "true"
        )
        let expected = #"""
            {"task_id":"a","type":"cmd","cmd":["true"],"name":"n","cwd":"d","env":{"A":"1=2","B":""},"timeout":120,"max_retries":0,"priority":-5,"max_wait":3600}
            """#
        #expect(text == expected)
    }

    @Test func exactlyOneCommandIsNeeded() {
        #expect(throws: ValidationError.self) { try task("--id", "x") }
        #expect(throws: ValidationError.self) { try task("--shell", "a", "--", "b") }
        #expect(throws: ValidationError.self) { try task("--shell", "a", "--env", "NOVALUE") }
        #expect(throws: ValidationError.self) { try task("--shell", "a", "--type", "cmd") }
    }

    @Test func everyCommandHasHelpWithAnExample() {
        for command in Program.configuration.groupedSubcommands.flatMap(\.subcommands) {
            let help = Program.helpMessage(for: command)
            #expect(help.contains("Example"), "\(command)")
            #expect(help.split(separator: "\n").allSatisfy { $0.count <= 100 }, "\(command)")
        }
    }
}

@Suite("Submissions")
struct SubmissionTests {
    private let now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)

    private func submission(_ text: String) throws -> Submission {
        var source = IdentifierSource(seed: 1)
        return try Submission(task: Array(text.utf8), now: now, from: &source)
    }

    @Test func aTaskWithAnIdIsSentAsItIs() throws {
        let text = #"{ "task_id":"a", "cmd":["true"], "future":[1, 2] }"#
        let first = try submission(text)
        #expect(first.id.text == "a")
        #expect(first.bytes == Array(text.utf8))
    }

    @Test func aTaskWithoutOneGetsOne() throws {
        let made = try submission(#"{"cmd":["true"],"big":12345678901234567890}"#)
        let json = try JSON(parsing: made.bytes)
        #expect(json["task_id"]?.stringValue == made.id.text)
        #expect(json["submitted_at"]?.doubleValue == 1_700_000_000)
        #expect(json["big"] == .number("12345678901234567890"))
    }

    @Test(arguments: ["[]", "{", #"{"cmd":[]}"#, #"{"task_id":"a.b","cmd":["x"]}"#, #"{"shell":"x"}"#])
    func aBadTaskIsRefusedBeforeItIsSent(_ text: String) {
        #expect(throws: TaskRefusal.self) { try submission(text) }
    }

    @Test func aJobIsRunAgainAsANewOneThatNamesIt() throws {
        var source = IdentifierSource(seed: 1)
        let outcome = AttemptOutcome(code: .badTask, reason: "x")
        let record = JobRecord(
            refusing: try #require(JobID("old")),
            state: .failed,
            outcome: outcome,
            submission: Array(#"{"task_id":"old","cmd":["true"],"submitted_at":5}"#.utf8),
            digest: "",
            order: 1,
            op: OperationID(from: &source),
            at: now,
            submitted: 0
        )
        let again = try RetryCommand.again(record, now: now, from: &source)
        let json = try JSON(parsing: again.bytes)
        #expect(json["retry_of"]?.stringValue == "old")
        #expect(json["task_id"]?.stringValue == again.id.text)
        #expect(again.id.text != "old")
    }
}

@Suite("Files of ids and tasks")
struct LineReaderTests {
    private func file(_ text: String) throws -> String {
        let path = "/tmp/maestroctl-lines-\(UInt64.random(in: 0 ... .max))"
        let stream = try #require(fopen(path, "w"))
        defer { fclose(stream) }
        #expect(fputs(text, stream) >= 0)
        return path
    }

    @Test func linesAreReadWithoutTheirNewlines() throws {
        let path = try file("one\n\ntwo\r\n" + String(repeating: "x", count: 200_000) + "\nlast")
        defer { unlink(path) }
        let lines = Array(try LineReader(path))
        #expect(lines.count == 5)
        #expect(lines[1].isBlank)
        #expect(lines[3].count == 200_000)
        #expect(lines[4] == Array("last".utf8))
    }

    @Test func aLineWithoutEndIsCut() throws {
        let path = try file(String(repeating: "x", count: LineReader.limit * 3) + "\nnext\n")
        defer { unlink(path) }
        let lines = Array(try LineReader(path))
        #expect(lines.map(\.count) == [LineReader.limit, 4])
    }

    @Test func idsComeBareOrInObjects() throws {
        let path = try file("a\n{\"task_id\":\"b\",\"sequence\":1}\n\n c \n")
        defer { unlink(path) }
        #expect(try WaitCommand.identifiers(in: LineReader(path)).map(\.text) == ["a", "b", "c"])
    }

    @Test(arguments: ["a.b\n", "{\"id\":1}\n", "{\n"])
    func whatIsNoIdIsToldWithItsLine(_ text: String) throws {
        let path = try file("a\n" + text)
        defer { unlink(path) }
        let error = #expect(throws: FatalError.self) { try WaitCommand.identifiers(in: LineReader(path)) }
        #expect(error?.code == .usage)
        #expect(error?.message.hasPrefix("\(path) line 2: ") == true)
    }

    @Test func aMissingFileIsTold() {
        let error = #expect(throws: FatalError.self) { try LineReader("/nonexistent/file") }
        #expect(error?.code == .notFound)
    }
}
