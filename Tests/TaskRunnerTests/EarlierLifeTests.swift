import Glibc
import Testing

@testable import TaskRunner

/// What a killed worker has left is gone before the next one runs anything.
struct EarlierLifeTests {
    /// Runs a worker's life that ends by SIGKILL, leaving `line` running. The test's process adopts what it leaves.
    ///
    /// Returns the number that the task has printed.
    private static func life(_ line: String, in directory: TemporaryDirectory) async throws -> Int32 {
        let lab = try Lab()
        let marker = "\(TaskRunner.workerVariable)=\(directory.path)"
        // The marker is set by the line, because a lab's own worker has another one.
        let started = try lab.start(lab.spec(["env", marker, "sh", "-c", line]))
        let pid = try #require(await Int32(started.lines(1)[0]))
        return pid
    }

    @Test func markedProcessesAndTheirTreesAreEnded() async {
        await #expect(processExitsWith: .success) {
            let directory = try TemporaryDirectory()
            let pid = try await Self.life("env -i sleep 1000 & echo $!; wait", in: directory)
            #expect(lives(pid))
            let ended = try EarlierLife.end(workerMarker: directory.path, journaled: [], within: .seconds(30))
            #expect(ended.count == 2, "the shell, and its child that has no marker: \(ended)")
            #expect(!lives(pid))
            #expect(try EarlierLife.end(workerMarker: directory.path, journaled: [], within: .zero).isEmpty)
        }
    }

    @Test func journaledProcessesAreEndedAndLaterOnesWithTheirPidAreNot() async {
        await #expect(processExitsWith: .success) {
            let directory = try TemporaryDirectory()
            let pid = try await Self.life("exec env -i sh -c 'echo $$; exec sleep 1000'", in: directory)
            let entry = try #require(ProcessEntry(pid: pid))
            func end(started: UInt64, boot: String) throws -> Int {
                let process = ProcessIdentity(pid: pid, started: started, bootID: boot)
                return try EarlierLife.end(workerMarker: "none", journaled: [process], within: .seconds(30)).count
            }
            #expect(try end(started: entry.started + 1, boot: ProcessTable.bootID) == 0)
            #expect(try end(started: entry.started, boot: "another boot") == 0)
            #expect(lives(pid))
            #expect(try end(started: entry.started, boot: ProcessTable.bootID) == 1)
            #expect(!lives(pid))
        }
    }

    @Test func whatCannotBeEndedInTimeIsAnError() async {
        await #expect(processExitsWith: .success) {
            let directory = try TemporaryDirectory()
            let pid = try await Self.life("echo $$; exec sleep 1000", in: directory)
            let error = #expect(throws: TaskRunnerError.self) {
                try EarlierLife.end(workerMarker: directory.path, journaled: [], within: .zero)
            }
            #expect(error?.code == .unkillable)
            #expect(error?.description.contains("pid \(pid)") == true)
            _ = try EarlierLife.end(workerMarker: directory.path, journaled: [], within: .seconds(30))
        }
    }
}
