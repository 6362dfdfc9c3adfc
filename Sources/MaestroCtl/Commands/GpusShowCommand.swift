import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct GpusShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Shows everything about a card, with the last minutes as small plots.",
        discussion: "Example:\n  maestroctl gpus show 3"
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The card.", valueName: "CARD"))
    var gpu: GPUID
    @Flag(help: "Print JSON.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        let facts = try await facts(client)
        var card: CardView?
        do {
            card = try await client.api.card(gpu)
        } catch {
            guard error.isSilence, facts != nil else { throw PoolClient.failure(error, "card \(gpu)") }
            Console.say("\(error.silence): how the card is, is not known, only what its worker registered.")
        }
        await client.close()
        if json {
            var object = card?.json.objectValue ?? ["gpu_id": gpu.json, "state": "unknown"]
            if let facts { object["facts"] = .object(facts) }
            return Console.print(.object(object))
        }
        let title =
            "card \(gpu): \(Printable.line(facts?["card"]?.stringValue ?? card?.model ?? "a card without facts"))"
        Console.print(title)
        for line in CardDetails(card: card, facts: facts).lines(width: Console.width, paint: Paint(.output)) {
            Console.print(line)
        }
    }

    /// What the card's worker registered; nil when none did.
    private func facts(_ client: PoolClient) async throws -> JSONObject? {
        let store = ControlStore(client.jetStream, names: client.names)
        do {
            let subject = client.names.registration(gpu)
            guard let registration = try await store.read(subject, as: WorkerRegistration.self)?.record else {
                return nil
            }
            var facts = registration.facts
            facts["host"] = .string(registration.host)
            facts["pid"] = .int(registration.processID)
            return facts
        } catch {
            throw PoolClient.failure(error, "the registration of card \(gpu)")
        }
    }
}
