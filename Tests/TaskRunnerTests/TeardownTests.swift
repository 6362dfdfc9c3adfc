import EventLoop
import Glibc
import Testing

@testable import TaskRunner

/// Nothing of a task outlives it, and nothing of another task is touched.
struct TeardownTests {
    @Test func aShellThatIgnoresTermIsKilledWithItsChildren() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let started = try lab.start(
                lab.spec(["sh", "-c", "trap 'echo term' TERM; sleep 1000 & echo $!; while :; do wait; done"])
            )
            let child = try #require(await Int32(started.lines(1)[0]))
            let task = await started.task.value
            // The trap shows that TERM arrived and was survived; the child of the group takes it and dies.
            task.terminate()
            #expect(await started.lines(2)[1] == "term")
            task.kill()
            let end = await started.end.value
            #expect(end.exit == .signal(SIGKILL))
            #expect(!lives(child))
            #expect(!lives(task.process.pid))
            task.terminate()
            task.kill()
        }
    }

    @Test func backgroundChildrenEndWithTheirTask() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let end = try await lab.shell("sleep 1000 & sleep 1001 & echo $!; exit 3")
            #expect(end.exit == .code(3) && !end.outputHeldOpen)
            #expect(!lives(try #require(Int32(text(end.stdout.tail).dropLast()))))
        }
    }

    @Test func aDaemonThatHidesEverythingIsFound() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            // A session of its own, twice forked, no environment, no pipe of ours: only its descent is left.
            let daemon = "env -i setsid sh -c 'sleep 1000 & echo $! > pid; exec sleep 1001' </dev/null >/dev/null 2>&1"
            let end = try await lab.shell("(\(daemon) &) ; while ! test -s pid; do :; done; cat pid")
            #expect(end.exit == .code(0))
            #expect(end.strays == 2)
            #expect(!lives(try #require(Int32(text(end.stdout.tail).dropLast()))))
            #expect(try ProcessTable.children().isEmpty)
        }
    }

    @Test func straysOfSeveralTasksAreToldApart() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            // Each daemon hides another part of its descent: all of them but the session, and all.
            func daemon(_ how: String) throws -> Started {
                let line = "(\(how) setsid sh -c 'echo $$; exec sleep 1000' &) ; read -r _ < \(lab.directory.path)/fifo"
                return try lab.start(lab.spec(["sh", "-c", line]))
            }
            #expect(mkfifo(lab.directory.path + "/fifo", 0o600) == 0)
            let marked = try daemon("")
            let piped = try daemon("env -i")
            let markedPid = try #require(await Int32(marked.lines(1)[0]))
            let pipedPid = try #require(await Int32(piped.lines(1)[0]))

            #expect(try await lab.shell("exit 0").strays == 0)
            #expect(lives(markedPid) && lives(pipedPid))
            await marked.task.value.kill()
            #expect(await marked.end.value.strays == 1)
            #expect(!lives(markedPid) && lives(pipedPid))
            await piped.task.value.kill()
            #expect(await piped.end.value.strays == 1)
            #expect(!lives(pipedPid))
        }
    }

    @Test func aStrayOfNobodyKnownIsLeftToTheLastItCouldBelongTo() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let hidden = "env -i setsid sh -c 'echo $$ > pid; exec sleep 1000' </dev/null >/dev/null 2>&1"
            let older = try lab.start(lab.spec(["sh", "-c", "echo up; exec sleep 1000"]))
            _ = await older.lines(1)
            let younger = try await lab.shell("(\(hidden) &) ; while ! test -s pid; do :; done; cat pid")
            let pid = try #require(Int32(text(younger.stdout.tail).dropLast()))
            #expect(younger.strays == 0 && lives(pid))
            await older.task.value.kill()
            #expect(await older.end.value.strays == 1)
            #expect(!lives(pid))
        }
    }

    @Test func aForkBombOfDaemonsEnds() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let line = "for i in 1 2 3 4 5 6 7 8 9 10; do (setsid sh -c 'sleep 1000 & sleep 1001' &) ; done; exit 0"
            let end = try await lab.shell(line)
            #expect(end.exit == .code(0) && end.survivors.isEmpty)
            #expect(try ProcessTable.children().isEmpty)
        }
    }

    @Test func orphansThatDieByThemselvesAreReaped() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let started = try lab.start(lab.spec(["sh", "-c", "(true &) ; (true &) ; echo up; exec sleep 1000"]))
            _ = await started.lines(1)
            while try ProcessTable.children().filter(\.isDead).count < 2 { await Task.yield() }
            lab.runner.reapOrphans()
            let leader = await started.task.value.process.pid
            #expect(try ProcessTable.children().map(\.pid) == [leader])
            await started.task.value.kill()
            _ = await started.end.value
        }
    }

    @Test func outputHeldByAStrangerIsCutAfterTheDrainTime() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab(limits: TaskRunner.Limits(kill: .seconds(10), drain: .milliseconds(50)))
            let started = try lab.start(lab.spec(["sh", "-c", "echo up; exec sleep 1000"]))
            _ = await started.lines(1)
            // This process takes the write end, as a job could hand it to anybody over a socket.
            let pid = await started.task.value.process.pid
            let held = try Descriptor(path: "/proc/\(pid)/fd/1", flags: O_WRONLY)
            await started.task.value.kill()
            #expect(await started.end.value.outputHeldOpen)
            try held.synchronizeIgnoringPipes()
        }
    }

    @Test func manyTasksAtOnce() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let started = try (0..<40).map { number in
                try lab.start(lab.spec(["sh", "-c", "sleep 1000 & echo \(number); exit \(number)"]))
            }
            for (number, task) in started.enumerated() {
                let end = await task.end.value
                #expect(end.exit == .code(Int32(number)) && text(end.stdout.tail) == "\(number)\n")
            }
            #expect(try ProcessTable.children().isEmpty)
        }
    }
}

extension Descriptor {
    /// Keeps the descriptor open up to here; a pipe cannot be synchronised.
    fileprivate borrowing func synchronizeIgnoringPipes() throws {
        #expect(throws: Errno(EINVAL)) { try synchronize() }
    }
}
