import Glibc
import Testing

@testable import TaskRunner

/// How tasks start, end and print. Each test has a process of its own, as the runner demands.
struct TaskRunTests {
    @Test func exitCodesSignalsAndOutput() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let end = try await lab.shell("echo out; echo err >&2; exit 7")
            #expect(end.exit == .code(7))
            #expect(text(end.stdout.tail) == "out\n")
            #expect(text(end.stderr.tail) == "err\n")
            #expect(end.stdout.total == 4 && !end.stdout.isTruncated && !end.stdout.isLogCut)
            #expect(try contents(of: lab.directory.path + "/out1") == end.stdout.tail)
            #expect(end.strays == 0 && end.survivors.isEmpty && !end.outputHeldOpen)
            #expect(end.usage.maxResidentKiB > 0)

            #expect(try await lab.shell("kill -SEGV $$").exit == .signal(SIGSEGV))
            #expect(try await lab.run(lab.spec(["true"])).exit == .code(0))
        }
    }

    @Test func environmentDirectoryAndDescriptorsAreTheTasksOwn() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            setenv("LEAKED", "1", 1)
            let leak = open("/dev/null", O_RDONLY)
            signal(SIGINT, SIG_IGN)
            var spec = lab.spec(
                ["sh", "-c", "env; pwd; ls -l /proc/$$/fd; echo $$; cat /proc/self/status; cat"],
                environment: [("X", "1"), ("X", "2"), (TaskRunner.attemptVariable, "forged")]
            )
            spec.attemptID = "token"
            let end = try await lab.run(spec)
            let lines = text(end.stdout.tail).split(separator: "\n").map(String.init)
            #expect(lines.contains("X=2") && !lines.contains("X=1") && !lines.contains("LEAKED=1"))
            #expect(lines.contains("TASK_ATTEMPT_ID=token") && !lines.contains("TASK_ATTEMPT_ID=forged"))
            #expect(lines.contains("MAESTRO_WORKER=\(lab.directory.path)"))
            #expect(lines.contains(lab.directory.path))
            #expect(lines.filter { $0.contains(" -> ") }.count == 3, "stdin, stdout and stderr, not \(leak)")
            #expect(lines.contains { $0.contains(" 0 -> /dev/null") })
            #expect(lines.contains("SigBlk:\t0000000000000000"))
            // The C library keeps signals 32 and 33 for itself; they are the upper bits here.
            let ignored = try #require(lines.first { $0.hasPrefix("SigIgn:\t") }?.dropFirst("SigIgn:\t".count))
            #expect(try #require(UInt64(ignored, radix: 16)) & 0x7FFF_FFFF == 0)
            let session = try #require(lines.first { $0.hasPrefix("NSsid:\t") }?.dropFirst("NSsid:\t".count))
            #expect(lines.contains(String(session)), "the shell leads its session")
        }
    }

    @Test func spawnErrorsAreToldApart() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            func code(_ arguments: [String]) -> TaskRunnerError.Code? {
                do {
                    _ = try lab.start(lab.spec(arguments))
                    return nil
                } catch {
                    return (error as? TaskRunnerError)?.code
                }
            }
            let plain = lab.directory.path + "/plain"
            try write("#!/bin/sh\n", to: plain)
            let orphan = lab.directory.path + "/orphan"
            try write("#!/no/such/interpreter\n", to: orphan, mode: 0o755)
            let garbage = lab.directory.path + "/garbage"
            try write("no program at all", to: garbage, mode: 0o755)
            #expect(code(["no-such-program"]) == .programNotFound)
            #expect(code(["/no/such/program"]) == .programNotFound)
            #expect(code([orphan]) == .programNotFound)
            #expect(code([plain]) == .programNotExecutable)
            #expect(code([garbage]) == .programNotExecutable)
            #expect(code([lab.directory.path]) == .programNotExecutable)
            #expect(code([]) == .invalidTask)
            #expect(code(["echo", "a\0b"]) == .invalidTask)
            #expect(code(["echo", String(repeating: "x", count: 200_000)]) == .invalidTask)
            // A name without a slash is looked for in the task's PATH, relative entries in its directory.
            var spec = lab.spec(["plain"])
            spec.environment = [("PATH", ".")]
            #expect(throws: TaskRunnerError.self) { try lab.start(spec) }
            chmod(plain, 0o755)
            #expect(try await lab.run(spec).exit == .code(0))
            #expect(throws: TaskRunnerError.self) { try WorkingDirectory(anywhere: "/no/such/directory") }
        }
    }

    @Test func aGigabyteOfOutputNeitherBlocksNorKills() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            var spec = lab.spec(["sh", "-c", "head -c 1000000000 /dev/zero; echo end"])
            spec.fileLimit = 1_000_000
            let end = try await lab.run(spec)
            #expect(end.exit == .code(0))
            #expect(end.stdout.total == 1_000_000_004)
            #expect(end.stdout.tail.count == 64_000 && end.stdout.isTruncated)
            #expect(end.stdout.tail.suffix(5) == [0] + Array("end\n".utf8))
            #expect(end.stdout.isLogCut && end.stdout.logged == 1_000_000 && end.stdout.logFailure == nil)
            #expect(try contents(of: lab.directory.path + "/out1").count == 1_000_000)
        }
    }

    @Test func binaryOutputComesThroughWhole() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let all = (0..<256).map { "\\0" + String($0, radix: 8) }.joined()
            let end = try await lab.run(lab.spec(["/usr/bin/printf", "%b", all]))
            #expect(end.stdout.tail == (0..<256).map { UInt8($0) })
            let random = try await lab.shell("head -c 50000 /dev/urandom | tee copy")
            #expect(try contents(of: lab.directory.path + "/copy") == random.stdout.tail)
        }
    }

    @Test func aFullDiskCutsTheLogAlone() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            var spec = lab.spec(["sh", "-c", "head -c 300000 /dev/zero; echo end"])
            spec.logs.stdout = "/dev/full"
            let end = try await lab.run(spec)
            #expect(end.exit == .code(0) && end.stdout.total == 300_004)
            #expect(end.stdout.logFailure == .noSpace && end.stdout.logged == 0 && end.stdout.isLogCut)
            #expect(end.stderr.logFailure == nil)
        }
    }

    @Test func outputIsHandedOnInOrder() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let seen = Promise<Int>()
            let fifo = lab.directory.path + "/fifo"
            #expect(mkfifo(fifo, 0o600) == 0)
            let started = try lab.start(lab.spec(["sh", "-c", "echo one; cat fifo; echo two"])) { _, bytes, offset in
                if offset == 4 { seen.fulfil(bytes.count) }
            }
            #expect(await started.lines(1) == ["one"])
            // Output arrived while the task runs: it waits for somebody to write into the pipe.
            try write("through\n", to: fifo)
            #expect(await started.lines(3) == ["one", "through", "two"])
            #expect(await seen.value > 0)
            #expect(await started.end.value.stdout.total == 16)
        }
    }
}
