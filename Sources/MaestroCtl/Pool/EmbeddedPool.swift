import ArgumentParser
import Glibc
import JobModel
import ServiceSupport
import Synchronization

/// A pool of one's own: a private server, a maestro and workers, kept running by this process.
struct EmbeddedPool: Sendable {
    let directory: PoolDirectory
    let address: ServerURL
    private let server: Supervised
    private let maestro: Supervised
    private let workers: [Supervised]
    private let cards: [GPUID]
    private let isFake: Bool

    /// Prepares everything; nothing runs yet.
    /// - Parameters:
    ///   - port: of the server on the loopback address; 0 takes a free one.
    ///   - cards: the numbers of the cards; each gets a worker.
    ///   - rig: the made-up machine that has these cards; nil for this one.
    /// - Throws: when the port is taken, a program is missing or the directory cannot be written.
    init(
        directory: PoolDirectory,
        port: UInt16,
        cards: [Int],
        rig: FakeRigProcess? = nil,
        natsServer: String
    ) throws(FatalError) {
        guard let port = LoopbackPort.available(port) else {
            throw FatalError(
                .configuration,
                "port \(port) is taken, perhaps by another nats-server: choose another with --port, or --port 0 for a "
                    + "free one"
            )
        }
        let maestro = try Executables.ours("maestro")
        let worker = try Executables.ours("gpu-worker")
        self.directory = directory
        address = .loopback(port: port)
        isFake = rig != nil
        let plan = PoolPlan(
            directory: directory,
            address: address,
            port: port,
            rigEnvironment: rig?.environment ?? [:]
        )
        try plan.writeConfiguration()
        let tell: @Sendable (String) -> Void = { Console.say("maestroctl: \($0)") }
        server = Supervised(plan.server(natsServer), tell: tell)
        self.maestro = Supervised(plan.maestro(maestro), tell: tell)
        workers = cards.map { Supervised(plan.worker($0, worker), tell: tell) }
        self.cards = cards.compactMap { GPUID(node: nil, number: $0) }
    }

    private enum Happening: Sendable {
        /// Everything that was started is there.
        case ready
        /// Told to end, or a program cannot be helped.
        case over(FatalError?)
        case commandEnded(Int32)
    }

    /// Runs the pool until a signal, or until the command has ended.
    /// - Parameter command: a program and its arguments to run when the pool is ready; empty for none.
    /// - Returns: the exit status: the command's, or 0.
    func run(_ command: [String]) async throws -> Int32 {
        Console.say("maestroctl: starting a pool in \(directory.path)")
        let status = try await withThrowingTaskGroup(of: Happening.self) { group in
            for program in [server, maestro] + workers { group.addTask { try await Self.keep(program) } }
            group.addTask {
                for await _ in Interrupts.stream() { return .over(nil) }
                return .over(nil)
            }
            group.addTask {
                try await PoolReadiness(address: address, cards: cards).wait()
                return .ready
            }
            let result: Result<Int32, any Error>
            do {
                result = .success(try await follow(command, &group))
            } catch {
                result = .failure(error)
            }
            group.cancelAll()
            await end()
            return try result.get()
        }
        return status
    }

    private func follow(_ command: [String], _ group: inout ThrowingTaskGroup<Happening, any Error>) async throws
        -> Int32
    {
        while let happening = try await group.next() {
            switch happening {
            case .ready:
                announce()
                if !command.isEmpty { group.addTask { .commandEnded(try await runCommand(command)) } }
            case .over(let error):
                if let error { throw error }
                return command.isEmpty ? 0 : Interrupts.exitStatus
            case .commandEnded(let status): return status
            }
        }
        return 0
    }

    /// Runs a program again and again; comes back only when it was told to stop or cannot be helped.
    private static func keep(_ program: Supervised) async throws -> Happening {
        do throws(FatalError) {
            try await program.run()
            return .over(nil)
        } catch {
            return .over(error)
        }
    }

    private func announce() {
        Console.print("NATS_URL=\(address)")
        var lines = [
            "The pool is up, with \(Printable.count(workers.count, "worker")).",
            "  data      \(directory.path)",
            "  settings  \(directory.maestroConfiguration)",
            "  logs      \(directory.logs)",
        ]
        if isFake {
            lines += WrappedText.lines(
                "The cards of this pool are NOT REAL: their names and readings are made up, nothing computes on them, "
                    + "and jobs run on this machine's processor.",
                width: WrappedText.width
            )
        }
        lines.append("Type in another terminal:")
        if address != .local { lines.append("  export NATS_URL=\(address)") }
        lines += [
            "  maestroctl submit --wait --shell 'echo hello from card $GPU_ID'",
            "  maestroctl list",
            "  maestroctl gpus --watch",
            "Ctrl-C ends the pool; its jobs stay and go on at the next up.",
        ]
        Console.say(lines.joined(separator: "\n"))
    }

    private func runCommand(_ command: [String]) async throws -> Int32 {
        let path = try command[0].contains("/") ? command[0] : Executables.ours(command[0])
        var environment = PoolPlan.environment
        environment["NATS_URL"] = address.text
        let child = try ChildProcess(
            ChildProcess.Specification(
                name: command[0],
                path: path,
                arguments: Array(command.dropFirst()),
                environment: environment,
                logFile: nil,
                signalAtOurDeath: SIGTERM
            )
        )
        return await withTaskCancellationHandler {
            await child.wait().status
        } onCancel: {
            child.signal(SIGTERM)
        }
    }

    // MARK: the end

    /// Ends everything in the order in which it leans on each other: workers, maestro, server. A second signal ends it
    /// at once.
    private func end() async {
        let all = workers + [maestro, server]
        let impatience = Task {
            for await _ in Interrupts.stream() {
                for program in all { program.kill() }
            }
        }
        Console.say("maestroctl: ending the pool; running jobs get a moment to finish (Ctrl-C again ends them at once)")
        await withTaskGroup { group in
            for worker in workers { group.addTask { await worker.stop(grace: PoolPlan.drain + .seconds(20)) } }
        }
        await maestro.stop(grace: .seconds(10))
        await server.stop(grace: .seconds(10))
        impatience.cancel()
        directory.remove(directory.addressFile)
    }
}
