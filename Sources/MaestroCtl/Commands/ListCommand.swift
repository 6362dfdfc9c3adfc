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
        var newest = NewestJobs(limit: limit == 0 ? .max : limit)
        var unreadable = 0
        try await Replay.run(
            client,
            stream: client.names.jobsStream,
            subject: client.names.statePrefix + ".*",
            what: "the jobs"
        ) { message in
            do {
                let stored = try StoredRecord(message)
                if state.isEmpty || state.contains(stored.record.state) { newest.add(stored) }
            } catch {
                unreadable += 1
            }
        }
        await client.close()
        show(newest)
        if unreadable > 0 { Console.say("maestroctl: \(unreadable) records could not be read") }
    }

    private func show(_ newest: NewestJobs) {
        let jobs = newest.jobs
        if json {
            for job in jobs { Console.write(job.record.encoded() + [UInt8(ascii: "\n")]) }
            return
        }
        for line in Self.table(jobs, now: WallClock.now()).lines(width: Console.width, paint: Paint(.output)) {
            Console.print(line)
        }
        if newest.left > 0 { Console.say("\(newest.left) older jobs are left out; see --limit and --state") }
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

/// The newest of many jobs, by the time of their submission; no more than `limit` are ever kept.
struct NewestJobs {
    let limit: Int
    private var seen = 0
    private var kept: [StoredRecord] = []

    init(limit: Int) { self.limit = limit }

    /// How many were left out because newer ones filled the limit.
    var left: Int { max(0, seen - limit) }

    mutating func add(_ job: StoredRecord) {
        seen += 1
        kept.append(job)
        // Sorted rarely, so that a million jobs cost little more than reading them.
        if limit < .max / 4, kept.count >= limit * 2 + 64 { trim() }
    }

    /// Newest first.
    var jobs: [StoredRecord] {
        var copy = self
        copy.trim()
        return copy.kept
    }

    private mutating func trim() {
        kept.sort { a, b in
            let (x, y) = (a.record.times.submitted, b.record.times.submitted)
            return x != y ? x > y : (a.record.order, a.record.id) > (b.record.order, b.record.id)
        }
        if kept.count > limit { kept.removeLast(kept.count - limit) }
    }
}
