import Glibc
import Testing

@testable import TaskRunner

/// What a task may not do.
struct ConfinementTests {
    @Test func memoryIsLimitedForEachProcessWithoutAController() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            var spec = lab.spec(["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"])
            spec.limits = ResourceLimits(memoryBytes: 64 << 20)
            let end = try await lab.run(spec)
            #expect(end.exit == .code(1))
            #expect(text(end.stderr.tail).contains("memory exhausted"))
        }
    }

    @Test func namespacesAreDeniedAndThreadsAreNot() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab(confinement: TaskRunner.Confinement(deniesNamespaces: true))
            for flags in ["--user", "--net --map-root-user", "--mount"] {
                let end = try await lab.shell("unshare \(flags) true")
                #expect(end.exit == .code(1), "unshare \(flags)")
                #expect(text(end.stderr.tail).contains("unshare failed: Operation not permitted"))
            }
            #expect(try await lab.shell("nsenter --target 1 --net true").exit == .code(1))
            let threads = "import threading; t = threading.Thread(target=print, args=['ran']); t.start(); t.join()"
            let end = try await lab.run(lab.spec(["python3", "-c", threads]))
            #expect(text(end.stdout.tail) == "ran\n", "\(text(end.stderr.tail))")
            let rights = try await lab.shell("grep NoNewPrivs /proc/self/status")
            #expect(text(rights.stdout.tail) == "NoNewPrivs:\t1\n")
        }
    }

    @Test func unknownUsersAndRootAreRefused() {
        for name in ["no-such-user-here", "root", ""] {
            let error = #expect(throws: TaskRunnerError.self) { try JobUser(named: name) }
            #expect(error?.code == .invalidTask)
        }
    }

    @Test(.enabled(if: getuid() == 0, "only root may run tasks as another user"))
    func aTaskOfAnotherUserHasNoneOfOurRights() async {
        await #expect(processExitsWith: .success) {
            let user = try JobUser(named: "nobody")
            #expect(JobUser.missingCapabilities().isEmpty)
            let lab = try Lab(confinement: TaskRunner.Confinement(user: user))
            #expect(chmod(lab.directory.path, 0o755) == 0)
            let question = "id -u; id -g; id -G; grep -c 'Cap...:.0000000000000000$' /proc/self/status"
            let said = try await lab.shell(question)
            let groups = user.groups.map { "\($0)" }.joined(separator: " ")
            // The inheritable, permitted, effective and ambient ones; the bounding set is the fifth.
            #expect(text(said.stdout.tail) == "\(user.user)\n\(user.group)\n\(groups)\n4\n")
            #expect(try await lab.shell("kill -0 \(getpid())").exit == .code(1))
            #expect(try await lab.shell("echo x > file").exit != .code(0))

            let deaf = "trap '' TERM; (setsid sleep 1000 &) ; echo up; while :; do sleep 9; done"
            let started = try lab.start(lab.spec(["sh", "-c", deaf]))
            _ = await started.lines(1)
            await started.task.value.terminate()
            await started.task.value.kill()
            let end = await started.end.value
            #expect(end.exit == .signal(SIGKILL) && end.survivors.isEmpty)
            #expect(try ProcessTable.children().filter { !$0.isDead }.isEmpty)

            // What our rights would open is closed to it.
            #expect(chmod(lab.directory.path, 0o700) == 0)
            let error = #expect(throws: TaskRunnerError.self) { try lab.start(lab.spec(["/bin/true"])) }
            #expect(error?.code == .workingDirectory)
            #expect(error?.description.contains("as user nobody") == true)
        }
    }
}
