import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct GpusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gpus",
        abstract: "Lists the cards of the pool.",
        discussion: "Example:\n  maestroctl gpus --json"
    )

    @OptionGroup var pool: PoolOptions
    @Flag(help: "Print JSON, one line for each card.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        do {
            let cards = try await client.api.cards()
            await client.close()
            show(cards)
        } catch .noMaestro {
            try await showRegistrations(client)
            await client.close()
        } catch {
            throw PoolClient.failure(error, "gpus")
        }
    }

    private func show(_ cards: [MaestroAPI.Card]) {
        if json {
            for card in cards { Console.print(card.json) }
            return
        }
        if cards.isEmpty { return Console.say("No worker has been heard of yet.") }
        for line in Self.table(cards).lines(width: Console.width, paint: Paint(.output)) { Console.print(line) }
    }

    static func table(_ cards: [MaestroAPI.Card]) -> Table {
        var table = Table(titles: "CARD", "STATE", ">JOBS", ">BUSY", ">TEMP", ">HEARD", "RUNS")
        for card in cards {
            let colour: Paint.Colour = card.state == "up" ? .green : card.state == "gone" ? .red : .yellow
            table.add([
                Table.Cell(card.gpu.text),
                Table.Cell(card.state, colour),
                Table.Cell("\(card.running.count)/\(card.slots)"),
                Table.Cell(card.busyPercent.map { "\(Printable.fixed($0, 0))%" } ?? "-"),
                Table.Cell(card.temperature.map { "\(Printable.fixed($0, 0))°C" } ?? "-"),
                Table.Cell(card.heartbeatAge.map { Printable.duration($0) } ?? "-"),
                Table.Cell(card.reason.isEmpty ? card.running.joined(separator: " ") : card.reason),
            ])
        }
        return table
    }

    /// Without a maestro nobody knows how the cards are, only who registered for them.
    private func showRegistrations(_ client: PoolClient) async throws {
        var registrations: [WorkerRegistration] = []
        try await Replay.run(
            client,
            stream: client.names.controlStream,
            subject: client.names.subjectPrefix + "gpu.ctl.*",
            what: "the workers"
        ) { message in
            do {
                registrations.append(try WorkerRegistration(parsing: message.payload))
            } catch {
                // The leader's lease and place stand beside the registrations.
            }
        }
        Console.say("No maestro leads this pool, so how the cards are is unknown. Registered are:")
        registrations.sort { $0.gpu < $1.gpu }
        if json {
            for worker in registrations {
                Console.print([
                    "gpu_id": worker.gpu.json, "host": .string(worker.host), "pid": .int(worker.processID),
                    "state": worker.isReleased ? "ended" : "unknown",
                ])
            }
            return
        }
        var table = Table(titles: "CARD", "HOST", ">PID", "STATE")
        for worker in registrations {
            table.add([
                Table.Cell(worker.gpu.text), Table.Cell(worker.host), "\(worker.processID)",
                worker.isReleased ? "ended in order" : "unknown",
            ])
        }
        for line in table.lines(width: Console.width, paint: Paint(.output)) { Console.print(line) }
    }
}
