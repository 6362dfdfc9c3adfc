import ArgumentParser
import Dispatch
import GPUTelemetry
import ServiceSupport

struct UpCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up",
        abstract: "Runs a whole pool here: a private server, a maestro and workers, until Ctrl-C.",
        usage: """
            maestroctl up [options]
            maestroctl up [options] -- PROGRAM [ARGUMENT ...]
            """,
        discussion: """
            Jobs and data stay in the directory and are there at the next up. With a program after --, that is run \
            (NATS_URL tells it where the pool is) as soon as the pool is ready, and the pool ends with it.

            Examples:
              maestroctl up
              maestroctl up --dir /tmp/pool --port 0 --workers 2 -- maestroctl smoke
              maestroctl up --fake-rig 12xrx580,1xgtx1660
            """
    )

    @Option(
        help: ArgumentHelp(
            "Where the pool keeps everything (default: \(PoolDirectory.standard), and with --fake-rig the same with -fake).",
            valueName: "directory"
        )
    )
    var dir: String?
    @Option(help: ArgumentHelp("The server's port on this machine; 0 takes a free one.", valueName: "port"))
    var port: UInt16 = 4222
    @Option(
        help: ArgumentHelp(
            "How many workers (default: one for each card found, or one without a card).",
            valueName: "n"
        )
    )
    var workers: Int?
    @Option(
        help: ArgumentHelp(
            "Make cards up, to try everything without hardware, with a worker for each: 4xrx580,2xgtx1660,1xintel.",
            valueName: "cards"
        )
    )
    var fakeRig: String?
    @Option(help: ArgumentHelp("The nats-server to run (default: NATS_SERVER, or the one on PATH).", valueName: "file"))
    var natsServer: String?
    @Argument(
        parsing: .postTerminator,
        help: ArgumentHelp("After --: a program to run with the pool.", valueName: "program argument ...")
    )
    var command: [String] = []

    func validate() throws {
        if let workers, !(1...256).contains(workers) { throw ValidationError("--workers must be 1 to 256") }
        if workers != nil, fakeRig != nil {
            throw ValidationError("--workers and --fake-rig: a made-up machine has one worker for each card")
        }
    }

    func run() async throws {
        let server = try Executables.natsServer(named: natsServer)
        let status: Int32
        if let fakeRig {
            status = try await runFake(fakeRig, server)
        } else {
            let pool = try EmbeddedPool(
                directory: PoolDirectory(dir ?? PoolDirectory.standard),
                port: port,
                cards: await Self.cards(wanted: workers),
                natsServer: server
            )
            status = try await pool.run(command)
        }
        if status != 0 { throw ArgumentParser.ExitCode(status) }
    }

    private func runFake(_ cards: String, _ server: String) async throws -> Int32 {
        // In a directory of its own: real and made-up cards would be taken for each other.
        let directory = try PoolDirectory(dir ?? PoolDirectory.standard + "-fake")
        Console.say("maestroctl: making up the cards")
        let rig = try await FakeRigProcess(cards)
        let result: Result<Int32, any Error>
        do {
            let pool = try EmbeddedPool(
                directory: directory,
                port: port,
                cards: Array(0..<rig.cardCount),
                rig: rig,
                natsServer: server
            )
            result = .success(try await pool.run(command))
        } catch {
            result = .failure(error)
        }
        await rig.end()
        return try result.get()
    }

    /// The numbers of the cards to start workers for: those of this machine's, or as many as wanted where it has none.
    private static func cards(wanted: Int?) async throws -> [Int] {
        let found = await withCheckedContinuation { continuation in
            // Drivers may take their time.
            DispatchQueue(label: "maestroctl.cards").async {
                continuation.resume(returning: CardInventory.scan().cards.map(\.number).sorted())
            }
        }
        guard !found.isEmpty else { return Array(0..<(wanted ?? 1)) }
        guard let wanted else { return found }
        guard wanted <= found.count else {
            throw FatalError(
                .configuration,
                "--workers \(wanted): this machine has \(Printable.count(found.count, "card")), and each worker needs one"
            )
        }
        return Array(found.prefix(wanted))
    }
}
