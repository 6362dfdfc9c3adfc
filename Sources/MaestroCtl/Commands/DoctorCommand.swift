import ArgumentParser
import Glibc
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Examines the whole pool, says what is wrong and what to do.",
        usage: "maestroctl doctor [options]",
        discussion: """
            Looks at server, streams, consumers, records, workers, maestro and this machine's disks, and changes \
            nothing. With --repair it puts right what can safely be put right, after asking: run messages that belong \
            to nothing, jobs whose message or record was lost, results that were not told, consumers that do not move. \
            Each repair is told, here and on maestro.repair; a job that has ended is never touched.

            Ends with 0 when nothing is wrong (or all of it was put right), with 1 when something is.

            Examples:
              maestroctl doctor
              maestroctl doctor --json
              maestroctl doctor --repair
            """
    )

    @OptionGroup var pool: PoolOptions
    @Flag(help: "Put right what can be, after asking.")
    var repair = false
    @Flag(help: "Do not ask.")
    var yes = false
    @Option(
        help: ArgumentHelp("The server's monitoring port (else port 8222 of its host is tried).", valueName: "url")
    )
    var monitor: String?
    @Option(help: ArgumentHelp("The server's store, if it is on this machine.", valueName: "directory"))
    var store: String?
    @Option(
        help: ArgumentHelp("How long something may be under way before it counts (60).", valueName: "time")
    )
    var patience: TimeSpan?
    @Flag(help: "Print JSON.")
    var json = false
    @OptionGroup(title: "Journal") var journal: JournalOptions

    func validate() throws {
        if yes, !repair { throw ValidationError("--yes goes with --repair") }
    }

    func run() async throws {
        if repair, !yes, isatty(0) != 1 || json {
            throw FatalError(.usage, "--repair asks on a terminal; say --yes to go on without being asked")
        }
        let client = try await pool.connect()
        let doctor = Doctor(
            client: client,
            journal: journal.journal(of: client),
            monitorURL: monitor,
            store: store,
            patience: patience?.seconds ?? 60
        )
        let diagnosis = try await doctor.examine()
        if !json {
            for line in diagnosis.lines(width: Console.width, Paint(.output)) { Console.print(line) }
        }
        let repairs = repair ? await carryOut(diagnosis, Repairer(client: client)) : []
        await client.close()
        if json { Console.print(Self.json(diagnosis, repairs)) }
        let isMended = diagnosis.findings.filter(\.isWrong).allSatisfy { finding in
            repairs.contains { $0.repair == finding.repair && $0.outcome.isGood }
        }
        if !isMended { throw quietExit(.failure) }
    }

    struct Done: Sendable {
        let repair: Repair
        let outcome: Repairer.Outcome
    }

    private func carryOut(_ diagnosis: Diagnosis, _ repairer: Repairer) async -> [Done] {
        var repairs: [Repair] = []
        for repair in diagnosis.findings.compactMap(\.repair) where !repairs.contains(repair) { repairs.append(repair) }
        guard !repairs.isEmpty else {
            if !json { Console.print("There is nothing that can be put right from here.") }
            return []
        }
        guard yes || isAgreed(repairs) else { return [] }
        let paint = Paint(.output)
        var done: [Done] = []
        for repair in repairs {
            let outcome = await repairer.carryOut(repair)
            done.append(Done(repair: repair, outcome: outcome))
            guard !json else { continue }
            let (word, colour, detail) = Self.words(outcome)
            for line in WrappedText.lines(
                Printable.line(repair.description + detail),
                width: Console.width,
                first: word + "  ",
                rest: String(repeating: " ", count: word.count + 2)
            ) {
                Console.print(line.hasPrefix(word) ? paint(word, colour) + line.dropFirst(word.count) : line)
            }
        }
        return done
    }

    private func isAgreed(_ repairs: [Repair]) -> Bool {
        for repair in repairs { Console.say("  \(repair)") }
        StandardStream.error.write(Array("Do this? [y/N] ".utf8))
        return ["y", "yes"].contains((readLine() ?? "").lowercased())
    }

    private static func words(_ outcome: Repairer.Outcome) -> (String, Paint.Colour, String) {
        switch outcome {
        case .done: ("done  ", .green, "")
        case .notNeeded(let why): ("left  ", .grey, ": \(why)")
        case .failed(let why): ("FAILED", .red, ": \(why)")
        }
    }

    private static func json(_ diagnosis: Diagnosis, _ repairs: [Done]) -> JSON {
        guard case .object(var object) = diagnosis.json else { return diagnosis.json }
        object["repairs"] = .array(
            repairs.map { done in
                var entry = JSONObject([
                    ("repair", .string(done.repair.code)), ("what", .string(done.repair.description)),
                ])
                switch done.outcome {
                case .done: entry["outcome"] = "done"
                case .notNeeded(let why): (entry["outcome"], entry["detail"]) = ("not_needed", .string(why))
                case .failed(let why): (entry["outcome"], entry["detail"]) = ("failed", .string(why))
                }
                return .object(entry)
            }
        )
        return .object(object)
    }
}

extension Repairer.Outcome {
    /// Nothing is left to be put right.
    var isGood: Bool {
        if case .failed = self { false } else { true }
    }
}
