import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct GpusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gpus",
        abstract: "Shows the cards of the pool, or everything about one.",
        discussion: """
            Examples:
              maestroctl gpus
              maestroctl gpus --watch
              maestroctl gpus --json
              maestroctl gpus show 3
            """,
        subcommands: [GpusListCommand.self, GpusShowCommand.self],
        defaultSubcommand: GpusListCommand.self
    )
}

struct GpusListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Lists the cards of the pool.",
        discussion: """
            A card's STATE is up, or the word for why it gets no job: gone, draining, cordoned, quarantined, hot, \
            cooling, overheated, sensor, unhealthy, busy, limited, probation. The lines below the table say more. TEMP \
            is shown with the limit from which the card gets no job.

            Example:
              maestroctl gpus --watch
            """
    )

    @OptionGroup var pool: PoolOptions
    @Flag(help: "Print JSON: one array, an object for each card.")
    var json = false
    @Flag(help: "Show them again and again, until Ctrl-C.")
    var watch = false
    @Option(help: ArgumentHelp("With --watch: how often (2s).", valueName: "time"))
    var interval = TimeSpan(seconds: 2)

    func validate() throws {
        if interval.seconds < 0.1 { throw ValidationError("--interval must be 0.1 seconds at least") }
    }

    func run() async throws {
        let client = try await pool.connect()
        if watch { try await showForEver(client) } else { try await show(client, isRedrawing: false) }
        await client.close()
    }

    private func showForEver(_ client: PoolClient) async throws {
        let showing = Task {
            while true {
                try await show(client, isRedrawing: !json && StandardStream.output.isTerminal)
                try await Task.sleep(for: interval.duration)
            }
        }
        let stopping = Task {
            for await _ in Interrupts.stream() { showing.cancel() }
        }
        defer { stopping.cancel() }
        do {
            try await showing.value
        } catch is CancellationError {
            await client.close()
            throw ArgumentParser.ExitCode(Interrupts.exitStatus)
        }
    }

    private func show(_ client: PoolClient, isRedrawing: Bool) async throws {
        let cards: [CardView]
        do {
            cards = try await client.api.cards()
        } catch {
            if error.isSilence { return try await showRegistrations(client, error) }
            throw PoolClient.failure(error, "gpus")
        }
        if json { return Console.print(JSON.array(cards.map(Self.row))) }
        // The cursor goes home and what is below is wiped: no flicker, as with a cleared screen.
        if isRedrawing { Console.write(Array("\u{1B}[H\u{1B}[J".utf8)) }
        if cards.isEmpty { return Console.say("No worker has been heard of yet.") }
        for line in CardText.table(cards).lines(width: Console.width, paint: Paint(.output)) { Console.print(line) }
        for reason in CardText.reasons(cards) {
            for line in WrappedText.lines(reason, width: Console.width, rest: "  ") { Console.print(line) }
        }
    }

    /// What scripts rely on is there, known or not.
    private static func row(_ card: CardView) -> JSON {
        var object = card.json.objectValue ?? JSONObject()
        for key in ["pci", "model"] where object[key] == nil { object[key] = .null }
        return .object(object)
    }

    /// Without a maestro nobody knows how the cards are, only who registered for them.
    private func showRegistrations(_ client: PoolClient, _ error: MaestroAPIError) async throws {
        var registrations: [WorkerRegistration] = []
        try await Replay.run(
            client,
            stream: client.names.controlStream,
            subject: client.names.subjectPrefix + "gpu.ctl.*",
            what: "the workers"
        ) { message in
            guard message.subject.hasPrefix(client.names.registrationPrefix) else { return }
            do throws(MalformedMessage) {
                registrations.append(try WorkerRegistration(parsing: message.payload))
            } catch {
                Console.say("maestroctl: what stands at \(message.subject) is \(error)")
            }
        }
        Console.say("\(error.silence), so how the cards are is unknown. Registered are:")
        registrations.sort { $0.gpu < $1.gpu }
        if json {
            return Console.print(
                JSON.array(
                    registrations.map { worker in
                        [
                            "gpu_id": worker.gpu.json, "pci": worker.facts["pci"] ?? .null,
                            "model": worker.facts["card"] ?? .null, "host": .string(worker.host),
                            "pid": .int(worker.processID), "state": worker.isReleased ? "ended" : "unknown",
                        ]
                    }
                )
            )
        }
        var table = Table(titles: "CARD", "MODEL", "STATE", ">PID", "HOST")
        for worker in registrations {
            table.add([
                Table.Cell(worker.gpu.text), Table.Cell(CardText.shortModel(worker.facts["card"]?.stringValue)),
                worker.isReleased ? "ended in order" : "unknown", "\(worker.processID)", Table.Cell(worker.host),
            ])
        }
        for line in table.lines(width: Console.width, paint: Paint(.output)) { Console.print(line) }
    }
}
