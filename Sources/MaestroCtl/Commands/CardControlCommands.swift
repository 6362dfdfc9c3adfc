import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

/// What the commands on cards have in common.
struct CardOptions: ParsableArguments {
    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The cards.", valueName: "CARD"))
    var gpus: [GPUID]
    @Flag(help: "Print JSON, one line for each card.")
    var json = false

    /// Asks the leader, card by card, and tells what each has come to.
    func apply(_ verb: MaestroAPI.CardVerb, reason: String = "", deadline: Duration? = nil) async throws -> PoolClient {
        let client = try await pool.connect()
        for gpu in gpus {
            let state: String
            do {
                state = try await client.api.control(verb, gpu, reason: reason, deadline: deadline)
            } catch {
                throw PoolClient.failure(error, "\(verb.rawValue) \(gpu)")
            }
            if json {
                Console.print(["gpu_id": gpu.json, "state": .string(state)])
            } else {
                Console.print("card \(gpu) is \(state)")
            }
        }
        return client
    }
}

struct CordonCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cordon",
        abstract: "Gives cards no more jobs; what runs on them goes on.",
        usage: "maestroctl cordon [options] CARD ...",
        discussion: """
            It lasts until `maestroctl uncordon`, also over restarts. Jobs that are bound to the card and have not \
            begun go to others.

            Example:
              maestroctl cordon 3 --reason 'fan is noisy'
            """
    )

    @OptionGroup var cards: CardOptions
    @Option(help: ArgumentHelp("Why, for whoever looks at the card later.", valueName: "text"))
    var reason = ""

    func run() async throws { await (try cards.apply(.cordon, reason: reason)).close() }
}

struct UncordonCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uncordon",
        abstract: "Gives cards jobs again that were cordoned or drained.",
        discussion: "Example:\n  maestroctl uncordon 3"
    )

    @OptionGroup var cards: CardOptions

    func run() async throws { await (try cards.apply(.uncordon)).close() }
}

struct DrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Empties cards: no more jobs, and what runs may finish.",
        usage: "maestroctl drain [options] CARD ...",
        discussion: """
            At the deadline what still runs is taken from the card and runs elsewhere, which costs it no retry. The \
            card stays cordoned.

            Examples:
              maestroctl drain 3 --deadline 10m --reason 'cleaning'
              maestroctl drain 0 1 2 --wait && sudo poweroff
            """
    )

    @OptionGroup var cards: CardOptions
    @Option(help: ArgumentHelp("Why, for whoever looks at the card later.", valueName: "text"))
    var reason = ""
    @Option(help: ArgumentHelp("How long running jobs may go on (for ever).", valueName: "time"))
    var deadline: TimeSpan?
    @Flag(help: "Wait until the cards are empty.")
    var wait = false

    func run() async throws {
        let client = try await cards.apply(.drain, reason: reason, deadline: deadline?.duration)
        if wait { try await waitUntilEmpty(client) }
        await client.close()
    }

    private func waitUntilEmpty(_ client: PoolClient) async throws {
        for gpu in cards.gpus {
            while true {
                let running: [String]
                do {
                    running = try await client.api.card(gpu).running
                } catch .noMaestro {
                    // Another one takes over soon, and knows of the drain.
                    running = ["?"]
                } catch {
                    throw PoolClient.failure(error, "card \(gpu)")
                }
                if running.isEmpty { break }
                try await Task.sleep(for: .seconds(1))
            }
        }
    }
}

struct QuarantineCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quarantine",
        abstract: "Takes cards that are sick out of use, until they are cleared.",
        usage: "maestroctl quarantine [options] CARD ...",
        discussion: """
            Maestro quarantines cards by itself that show signs of sickness, or on which jobs fail that succeed \
            elsewhere; those it probes, and uses them again when they answer well. One that a person has \
            quarantined stays so until a person clears it.

            Example:
              maestroctl quarantine 3 --reason 'artefacts'
            """
    )

    @OptionGroup var cards: CardOptions
    @Option(help: ArgumentHelp("Why, for whoever looks at the card later.", valueName: "text"))
    var reason = ""

    func run() async throws { await (try cards.apply(.quarantine, reason: reason)).close() }
}

struct ClearCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "clear",
        abstract: "Uses quarantined cards again.",
        discussion: "Whatever the quarantine was for is forgotten.\n\nExample:\n  maestroctl clear 3"
    )

    @OptionGroup var cards: CardOptions

    func run() async throws { await (try cards.apply(.clear)).close() }
}
