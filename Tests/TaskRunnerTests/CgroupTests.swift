import Glibc
import Testing

@testable import TaskRunner

/// Where this machine has cgroup v2 mounted, and lets us make cgroups; nil: nowhere.
private let cgroupMount: String? = {
    guard let bytes = try? contents(of: "/proc/self/mountinfo") else { return nil }
    let mount = CgroupPlace.path(cgroups: "0::/", mounts: text(bytes))
    return mount.flatMap { access("\($0)/cgroup.procs", W_OK) == 0 ? $0 : nil }
}()

/// A lab whose tasks have cgroups. It moves its process, so it lives in exit tests only.
private struct CgroupLab {
    let lab: Lab
    let place: CgroupPlace
    let tree: CgroupTree

    init(limits: TaskRunner.Limits = TaskRunner.Limits()) throws {
        place = CgroupPlace(path: "\(try #require(cgroupMount))/maestro-test-\(getpid())")
        tree = try CgroupTree(at: place, within: .seconds(30))
        lab = try Lab(confinement: TaskRunner.Confinement(cgroups: tree), limits: limits)
    }

    /// What an attempt can do to hide: a session of its own, twice forked, no environment, no pipe, deaf to SIGTERM.
    /// Writes its pid into the file `pid`.
    static let hide = """
        (env -i setsid sh -c 'trap "" TERM; echo $$ > pid; while :; do sleep 1000; done' </dev/null >/dev/null 2>&1 &)
        while ! test -s pid; do :; done; cat pid
        """

    var attempts: [String] {
        get throws { try Directory(path: place.path).names().filter { $0.hasPrefix("job-") } }
    }

    func close() throws {
        let mount = try Directory(path: try #require(cgroupMount))
        try mount.writeInPlace("0", to: "cgroup.procs")
        #expect(tree.remove("worker"))
        let isRemoved = mount.removeEmptyDirectory("maestro-test-\(getpid())")
        #expect(isRemoved)
    }
}

@Suite(.enabled(if: cgroupMount != nil, "no cgroup v2 in which this user may make cgroups"))
struct CgroupTests {
    @Test func whatHidesEverythingEndsWithItsTask() async {
        await #expect(processExitsWith: .success) {
            let world = try CgroupLab()
            #expect(mkfifo(world.lab.directory.path + "/fifo", 0o600) == 0)
            let started = try world.lab.start(world.lab.spec(["sh", "-c", "\(CgroupLab.hide); echo; read _ < fifo"]))
            let hidden = try #require(await Int32(started.lines(1)[0]))
            let known = try #require(try world.lab.runner.processes().first)
            #expect(known.pids.contains(hidden))
            #expect(try world.attempts == ["job-attempt-1"])
            await started.task.value.kill()
            let end = await started.end.value
            #expect(end.exit == .signal(SIGKILL) && end.survivors.isEmpty)
            #expect(!lives(hidden))
            #expect(try world.attempts.isEmpty)
            #expect(try ProcessTable.children().filter { !$0.isDead }.isEmpty)
            try world.close()
        }
    }

    @Test func whatATaskLeavesEndsWhenItsProcessEnds() async {
        await #expect(processExitsWith: .success) {
            let world = try CgroupLab()
            let end = try await world.lab.shell("\(CgroupLab.hide); exit 3")
            #expect(end.exit == .code(3) && end.strays == 2)
            #expect(!lives(try #require(Int32(text(end.stdout.tail).dropLast()))))
            #expect(try world.attempts.isEmpty)
            try world.close()
        }
    }

    @Test func whatForksOnAndOnIsKilledAsOne() async {
        await #expect(processExitsWith: .success) {
            let world = try CgroupLab()
            let line = "echo up; (setsid sh -c 'while :; do (setsid sleep 1000 &) ; done' &) ; read _ < fifo"
            #expect(mkfifo(world.lab.directory.path + "/fifo", 0o600) == 0)
            let started = try world.lab.start(world.lab.spec(["sh", "-c", line]))
            _ = await started.lines(1)
            while try (world.lab.runner.processes().first?.pids.count ?? 0) < 20 { await Task.yield() }
            await started.task.value.kill()
            let end = await started.end.value
            #expect(end.exit == .signal(SIGKILL) && end.survivors.isEmpty)
            #expect(try world.attempts.isEmpty)
            try world.close()
        }
    }

    @Test func aNextLifeEndsWhatAnEarlierOneHasLeft() async {
        await #expect(processExitsWith: .success) {
            let world = try CgroupLab()
            let started = try world.lab.start(world.lab.spec(["sh", "-c", "\(CgroupLab.hide); exec sleep 1000"]))
            let hidden = try #require(await Int32(started.lines(1)[0]))
            // The job's own cgroups go too, as deep as they are.
            let nested = "\(world.place.path)/job-attempt-1/a"
            #expect(mkdir(nested, 0o755) == 0 && mkdir("\(nested)/b", 0o755) == 0)
            try write("\(hidden)", to: "\(nested)/b/cgroup.procs")
            let leader = await started.task.value.process.pid

            _ = try CgroupTree(at: world.place, within: .seconds(30))
            #expect(!lives(hidden) && !lives(leader))
            #expect(try world.attempts.isEmpty)
            #expect(await started.end.value.exit == .signal(SIGKILL))
            try world.close()
        }
    }

    @Test func nothingIsBegunWhileAnEarlierLifeLives() async {
        await #expect(processExitsWith: .success) {
            let world = try CgroupLab()
            let started = try world.lab.start(world.lab.spec(["sh", "-c", "echo up; exec sleep 1000"]))
            _ = await started.lines(1)
            let error = #expect(throws: TaskRunnerError.self) { try CgroupTree(at: world.place, within: .zero) }
            #expect(error?.code == .unkillable)
            _ = await started.end.value
            try world.close()
        }
    }

    @Test func aTaskThatCannotStartLeavesNoCgroup() async {
        await #expect(processExitsWith: .success) {
            let world = try CgroupLab()
            let error = #expect(throws: TaskRunnerError.self) {
                try world.lab.start(world.lab.spec(["/dev/null"]))
            }
            #expect(error?.code == .programNotExecutable)
            #expect(try world.attempts.isEmpty)
            try world.close()
        }
    }

    @Test func manyTasksAtOnce() async {
        await #expect(processExitsWith: .success) {
            let world = try CgroupLab()
            let started = try (0..<40).map { number in
                try world.lab.start(world.lab.spec(["sh", "-c", "(setsid sleep 1000 &) ; exit \(number)"]))
            }
            for (number, task) in started.enumerated() {
                #expect(await task.end.value.exit == .code(Int32(number)))
            }
            #expect(try world.attempts.isEmpty)
            try world.close()
        }
    }

    @Test func limitsHoldTheAttemptAsAWholeWhereTheSystemHasControllers() async {
        await #expect(processExitsWith: .success) {
            let world = try CgroupLab()
            var spec = world.lab.spec(["sh", "-c", "cat \(world.place.path)/job-attempt-1/pids.max; true | true"])
            spec.limits = ResourceLimits(memoryBytes: 64 << 20, processes: 2)
            let end = try await world.lab.run(spec)
            if world.tree.controllers.contains(.pids) {
                #expect(text(end.stdout.tail) == "2\n")
                #expect(text(end.stderr.tail).contains("fork"))
            } else {
                #expect(end.exit == .code(0))
            }
            let line = "dd if=/dev/zero of=/dev/null bs=256M count=1 & wait $! && echo whole"
            var hog = world.lab.spec(["sh", "-c", line])
            hog.limits = ResourceLimits(memoryBytes: 64 << 20)
            let held = try await world.lab.run(hog)
            #expect(text(held.stdout.tail) == "")
            if world.tree.controllers.contains(.memory) {
                #expect(held.killsForMemory > 0)
            } else {
                #expect(text(held.stderr.tail).contains("memory"))
            }
            try world.close()
        }
    }
}

/// Where cgroups may be made.
struct CgroupPlaceTests {
    @Test(arguments: [
        ("0::/system.slice/a.service\n", "/", "/sys/fs/cgroup/system.slice/a.service"),
        ("1:name=systemd:/x\n0::/\n", "/", "/sys/fs/cgroup"),
        ("0::/outer/inner\n", "/outer", "/sys/fs/cgroup/inner"),
        ("0::/outer\n", "/outer", "/sys/fs/cgroup"),
        ("0::/outermost\n", "/outer", nil), ("1:cpu:/x\n", "/", nil),
    ])
    func isFoundInWhatTheKernelTells(cgroups: String, root: String, path: String?) {
        let mounts = """
            30 24 0:25 / /proc rw - proc proc rw
            31 24 0:26 \(root) /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
            """
        #expect(CgroupPlace.path(cgroups: cgroups, mounts: mounts) == path)
    }
}
