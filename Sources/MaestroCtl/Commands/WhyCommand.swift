import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct WhyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why",
        abstract: "Says why a job is where it is.",
        discussion: "Example:\n  maestroctl why 01jd2v8k5m"
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The job.", valueName: "ID"))
    var id: JobID
    @Flag(help: "Print JSON.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        let answer: JSON
        do {
            answer = try await client.api.why(id)
        } catch {
            if error.isSilence { return try await explain(client, without: error) }
            throw PoolClient.failure(error, "why \(id)")
        }
        await client.close()
        if json { return Console.print(answer) }
        show(answer)
    }

    /// The record tells something even when nobody leads.
    private func explain(_ client: PoolClient, without silence: MaestroAPIError) async throws {
        let record = try await client.record(id).record
        await client.close()
        guard !json else { throw FatalError(.unavailable, silence.description) }
        Console.print("\(id) \(JobText.story(of: record))")
        if !record.state.isTerminal { Console.print("\(silence.silence): nothing is placed until one does.") }
    }

    private func show(_ answer: JSON) {
        var line = "\(id) \(answer["state"]?.stringValue ?? "?")"
        if let gpu = answer["gpu"].flatMap({ GPUID($0) }) { line += " on card \(gpu)" }
        if let reason = answer["reason"]?.stringValue, !reason.isEmpty { line += ": \(Printable.line(reason))" }
        if let due = answer["due_in"]?.doubleValue { line += " (again in \(Printable.duration(due)))" }
        for line in WrappedText.lines(line, width: Console.width, rest: "  ") { Console.print(line) }
        let cards = answer["cards"]?.arrayValue ?? []
        guard !cards.isEmpty else { return }
        var table = Table(titles: "CARD", ">SCORE", "TAKES IT", "BECAUSE")
        for card in cards {
            let isEligible = card["eligible"]?.boolValue ?? false
            table.add([
                Table.Cell(card["gpu_id"].flatMap { GPUID($0) }?.text ?? "?"),
                Table.Cell(card["score"]?.doubleValue.map { Printable.fixed($0, 1) } ?? "-"),
                Table.Cell(isEligible ? "yes" : "no", isEligible ? .green : .yellow),
                Table.Cell(Self.reason(card, isEligible: isEligible)),
            ])
        }
        for line in table.lines(width: Console.width, paint: Paint(.output), overflow: .wrapped) { Console.print(line) }
    }

    /// Why a card does not take the job; of one that does, what its cache is worth.
    private static func reason(_ card: JSON, isEligible: Bool) -> String {
        guard isEligible, let bonus = card["cache_bonus"]?.doubleValue else { return card["reason"]?.stringValue ?? "" }
        return bonus > 0
            ? "its cache has what the job reads (score \(Printable.fixed(bonus, 0)) better)"
            : "its cache lacks what the job reads"
    }
}
