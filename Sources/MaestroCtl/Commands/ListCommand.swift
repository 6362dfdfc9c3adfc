import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport

struct ListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Lists jobs, the newest first.",
        usage: "maestroctl list [options]",
        discussion: """
            Examples:
              maestroctl list --state running
              maestroctl list --state failed --limit 0 --json
            """
    )

    @OptionGroup var pool: PoolOptions
    @Option(help: ArgumentHelp("Only jobs in this state; may be repeated.", valueName: "state"))
    var state: [JobState] = []
    @Option(help: ArgumentHelp("How many at most; 0 for all.", valueName: "n"))
    var limit = 50
    @Flag(help: "Print the records as JSON, one a line.")
    var json = false

    func validate() throws {
        if limit < 0 { throw ValidationError("--limit must be 0 or more") }
    }

    func run() async throws {
        let client = try await pool.connect()
        let listing = try await JobListing(client, states: Set(state), limit: limit == 0 ? .max : limit)
        await client.close()
        show(listing)
        if listing.unreadable > 0 { Console.say("maestroctl: \(listing.unreadable) records could not be read") }
    }

    private func show(_ listing: JobListing) {
        let jobs = listing.jobs
        if json {
            for job in jobs { Console.write(job.record.encoded() + [UInt8(ascii: "\n")]) }
            return
        }
        for line in Self.table(jobs, now: WallClock.now()).lines(width: Console.width, paint: Paint(.output)) {
            Console.print(line)
        }
        if listing.left > 0 { Console.say("\(listing.left) older jobs are left out; see --limit and --state") }
    }

    static func table(_ jobs: [StoredRecord], now: Double) -> Table {
        var table = Table(titles: "JOB", "STATE", "CARD", ">TRIES", ">AGE", "RUNS")
        for job in jobs {
            let record = job.record
            table.add([
                Table.Cell(record.id.text),
                Table.Cell(record.state.rawValue, Paint.colour(of: record.state)),
                Table.Cell(record.gpu?.text ?? "-"),
                Table.Cell("\(record.tries)"),
                Table.Cell(Printable.duration(now - record.times.submitted)),
                Table.Cell(JobText.name(of: record) ?? JobText.command(of: record)),
            ])
        }
        return table
    }
}
