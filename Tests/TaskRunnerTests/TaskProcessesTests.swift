import Glibc
import Testing

@testable import TaskRunner

/// Which processes a card's use is asked for.
struct TaskProcessesTests {
    @Test func aTaskIsItsWholeTreeAndWhatItsSessionHasOrphaned() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            #expect(try lab.runner.processes().isEmpty)
            // A child, a grandchild in a session of its own, and an orphan that stays in the session.
            let line = """
                (sleep 1000 & echo $!) ; sleep 1001 & echo $! ; sh -c 'setsid sleep 1002 & echo $!; wait' &
                while :; do wait; done
                """
            let first = try lab.start(lab.spec(["sh", "-c", line]))
            let second = try lab.start(lab.spec(["sh", "-c", "echo $$; exec sleep 1003"]))
            let children = await first.lines(3).compactMap { Int32($0) }
            let other = try #require(await Int32(second.lines(1)[0]))
            let (a, b) = (await first.task.value, await second.task.value)
            let found = try lab.runner.processes()
            #expect(found.map(\.attemptID) == [a.attemptID, b.attemptID])
            #expect(Set(found[0].pids).isSuperset(of: children + [a.process.pid]))
            #expect(found[1].pids == [other])
            a.kill()
            b.kill()
            _ = (await first.end.value, await second.end.value)
            #expect(try lab.runner.processes().isEmpty)
        }
    }
}
