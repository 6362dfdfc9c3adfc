import Glibc
import Testing

@testable import TaskRunner

/// A task with a watchdog ends at its deadline, whatever becomes of who has started it.
struct WatchdogTests {
    @Test func aTaskEndsAtItsDeadlineAndWhatItLeftElsewhereToo() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let line = "trap '' TERM; setsid sleep 1000 & echo $!; while :; do wait; done"
            let started = try lab.start(guarded(lab, ["sh", "-c", line]))
            let child = try #require(await Int32(started.lines(1)[0]))
            await started.task.value.order(WatchdogOrder(deadline: bootTime(after: 0), grace: .milliseconds(100)))
            let end = await started.end.value
            #expect(end.exit == .signal(SIGKILL))
            #expect(!lives(child))
            #expect(try ProcessTable.children().isEmpty, "the watchdog is gone too")
        }
    }

    @Test func aGracefulTaskHasTheGraceForItself() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let line = "trap 'echo saved; exit 3' TERM; echo on; while :; do sleep 0.01; done"
            let started = try lab.start(guarded(lab, ["sh", "-c", line]))
            _ = await started.lines(1)
            await started.task.value.order(WatchdogOrder(deadline: bootTime(after: 0), grace: .seconds(60)))
            let end = await started.end.value
            #expect(end.exit == .code(3))
            #expect(text(end.stdout.tail) == "on\nsaved\n")
        }
    }

    @Test func ordersExtendItAndTheEndOfTheTaskEndsIt() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            #expect(mkfifo(lab.directory.path + "/go", 0o600) == 0)
            var spec = guarded(lab, ["sh", "-c", "echo on; read -r _ < \(lab.directory.path)/go; exit 7"])
            spec.watchdog = WatchdogOrder(deadline: bootTime(after: 600), grace: .zero)
            let started = try lab.start(spec)
            _ = await started.lines(1)
            let task = await started.task.value
            task.order(WatchdogOrder(deadline: bootTime(after: 3600), grace: .zero))
            try write("go\n", to: lab.directory.path + "/go")
            #expect(await started.end.value.exit == .code(7))
            #expect(try ProcessTable.children().isEmpty)
        }
    }

    @Test func anEarlierOrderCounts() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let started = try lab.start(guarded(lab, ["sleep", "1000"]))
            let task = await started.task.value
            task.order(WatchdogOrder(deadline: bootTime(after: 0.05), grace: .seconds(60)))
            #expect(await started.end.value.exit == .signal(SIGTERM))
        }
    }

    @Test func aWatchdogThatDiesTakesItsTaskWithIt() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let started = try lab.start(guarded(lab, ["sleep", "1000"]))
            let leader = await started.task.value.process.pid
            let watchdog = try #require(try ProcessTable.children().first { $0.pid != leader })
            #expect(watchdog.name == "job-watchdog")
            #expect(kill(watchdog.pid, SIGTERM) == 0, "which it does not heed")
            #expect(kill(watchdog.pid, SIGKILL) == 0)
            #expect(await started.end.value.exit == .signal(SIGKILL))
        }
    }

    @Test func aRunnerThatHangsWhileItStartsATaskIsKilled() async {
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let marker = "\(TaskRunner.attemptVariable)=hanging-\(UInt64.random(in: 0 ... .max))"
            let watchdog = try Watchdog(marker: marker, WatchdogOrder(deadline: bootTime(after: 0), grace: .zero))
            // As a process that was stopped here would, for all that the watchdog can see.
            withExtendedLifetime(watchdog) { while true { pause() } }
        }
    }

    @Test func aRunnerThatIsKilledLeavesNothingBehind() async throws {
        // The killed process is a child of this test; what it leaves behind falls to the system and ends all the same.
        let result = await #expect(processExitsWith: .signal(SIGKILL), observing: [\.standardOutputContent]) {
            let lab = try Lab()
            let line = "trap '' TERM; setsid sleep 1000 & echo $! $$; while :; do wait; done"
            let started = try lab.start(guarded(lab, ["sh", "-c", line]))
            print(await started.lines(1)[0])
            fflush(nil)
            kill(getpid(), SIGKILL)
        }
        let printed = try #require(result).standardOutputContent
        let pids = String(decoding: printed, as: UTF8.self).split { $0 == " " || $0 == "\n" }.compactMap { Int32($0) }
        #expect(pids.count == 2)
        for pid in pids {
            guard let entry = ProcessEntry(pid: pid), !entry.isDead, let process = DyingProcess(watching: entry) else {
                continue
            }
            #expect(process.waitForDeath(until: .now + .seconds(60)), "process \(pid) lives on")
        }
    }
}

/// A task under an attempt of its own: the watchdog of one test must not find what another one runs beside it.
func guarded(_ lab: Lab, _ arguments: [String]) -> TaskSpec {
    var spec = lab.spec(arguments)
    spec.attemptID = "watched-\(UInt64.random(in: 0 ... .max))"
    spec.watchdog = WatchdogOrder(deadline: bootTime(after: 3600), grace: .zero)
    return spec
}

/// A moment on the kernel's boot clock.
func bootTime(after seconds: Double) -> Int64 {
    var now = timespec()
    clock_gettime(CLOCK_BOOTTIME, &now)
    return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec) + Int64(seconds * 1e9)
}
