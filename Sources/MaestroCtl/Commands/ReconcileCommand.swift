import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct ReconcileCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reconcile",
        abstract: "Submits again what was submitted from here and the pool has lost.",
        usage: "maestroctl reconcile [options]",
        discussion: """
            Every submission is written into a journal on this machine before it is sent, and stays there until its \
            end is seen. After a disaster (a disk lost, a power cut on a server that had not synced) this command \
            compares the journal with the pool: what the pool does not know is submitted again, the same bytes under \
            the same id, so that it cannot run twice; what has ended is forgotten.

            Submissions older than ID_HORIZON_SEC are told and not submitted: whether they ran can no longer be known.

            Ends with 0 when the pool knows everything, with 1 when something is left for you to look at.

            Examples:
              maestroctl reconcile --dry-run
              maestroctl reconcile --json
              maestroctl reconcile --moved-from nats://old:4222
            """
    )

    @OptionGroup var pool: PoolOptions
    @OptionGroup(title: "Journal") var journal: JournalOptions
    @Option(
        help: ArgumentHelp("Take the journal of the pool's former address: the pool has moved.", valueName: "url")
    )
    var movedFrom: String?
    @Flag(help: "Only say what would be done.")
    var dryRun = false
    @Flag(help: "Print JSON: a line for each submission that has not ended, then one with the counts.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        try await client.requirePool()
        guard let journal = try selected(client) else {
            throw FatalError(.usage, "there is no journal: name its directory with --journal")
        }
        let reconciliation = Reconciliation(client: client, journal: journal)
        let now = WallClock.now()
        let steps = try await reconciliation.run(
            horizon: client.settings.duration(PoolKeys.idHorizon),
            now: now,
            isDry: dryRun
        )
        await client.close()
        let report = ReconcileReport(steps: steps, now: now)
        if json {
            for line in report.jsonLines(journal.path) { Console.print(line) }
        } else {
            for line in report.lines(width: Console.width, Paint(.output)) { Console.print(line) }
            Console.say("maestroctl: \(report.summary(journal.path))")
        }
        try tellUnread(of: journal)
        if report.isTrouble { throw quietExit(.failure) }
    }

    private func selected(_ client: PoolClient) throws(FatalError) -> SubmissionJournal? {
        guard let movedFrom else { return journal.journal(of: client) }
        var urls: [ServerURL] = []
        for part in movedFrom.split(separator: ",") {
            do throws(SettingProblem) {
                urls.append(try ServerURL(String(part)))
            } catch {
                throw FatalError(.usage, "--moved-from: \(error.reason)")
            }
        }
        return journal.journal(of: SubmissionJournal.pool(urls, client.names))
    }

    /// What in the journal is not understood.
    private func tellUnread(of journal: SubmissionJournal) throws(FatalError) {
        let newer = try journal.read().newerLines
        guard newer > 0 else { return }
        Console.say(
            "maestroctl: \(Printable.count(newer, "line")) of the journal are of a newer version, and left alone"
        )
    }
}

/// What a reconciliation came to, in words.
struct ReconcileReport {
    let steps: [Reconciliation.Step]
    let now: Double

    var isTrouble: Bool { steps.contains { $0.action.isTrouble } }

    /// A line for each submission about which something was, or is to be, done.
    func lines(width: Int, _ paint: Paint) -> [String] {
        var table = Table(titles: "JOB", ">AGE", "WHAT")
        for step in steps {
            guard let (words, colour) = Self.words(step.action) else { continue }
            table.add([
                Table.Cell(step.entry.submission.id.text), Table.Cell(Printable.duration(now - step.entry.time)),
                Table.Cell(words, colour),
            ])
        }
        return table.rows.isEmpty ? [] : table.lines(width: width, paint: paint)
    }

    /// Nil for what is in order.
    private static func words(_ action: Reconciliation.Action) -> (String, Paint.Colour?)? {
        switch action {
        case .none(.conflict): ("the id belongs to a job with other content; submit it under another", .red)
        case .none(.unreadable(let why)): ("its record cannot be read: \(why)", .red)
        case .none: nil
        case .resubmitted: ("the pool did not know it: submitted again", .green)
        case .known: ("the server had it already", nil)
        case .wouldResubmit: ("the pool does not know it: would be submitted again", .yellow)
        case .tooOld: ("unknown and too old: if it should run, submit it under a new id", .red)
        case .refused(let why): ("refused: \(why)", .red)
        case .unanswered(let why): ("no answer; run this again: \(why)", .red)
        }
    }

    private func count(_ isCounted: (Reconciliation.Action) -> Bool) -> Int { steps.count { isCounted($0.action) } }

    func summary(_ path: String) -> String {
        guard !steps.isEmpty else { return "no submission in the journal \(path) waits for its end" }
        let ended = count { if case .none(.ended) = $0 { true } else { false } }
        let alive = count { $0 == .none(.queued) || $0 == .known || $0.isAlive }
        let again = count { $0 == .resubmitted || $0 == .wouldResubmit }
        let trouble = count(\.isTrouble)
        return "of \(Printable.count(steps.count, "submission")): \(ended) ended, \(alive) on their way, "
            + "\(again) unknown to the pool"
            + (trouble > 0 ? ", \(trouble) to be looked at" : "")
    }

    func jsonLines(_ path: String) -> [JSON] {
        let open = steps.compactMap { step -> JSON? in
            if case .none(.ended) = step.action { return nil }
            let (action, detail) = Self.code(step.action)
            var line = JSONObject([
                ("task_id", .string(step.entry.submission.id.text)), ("action", .string(action)),
                ("submitted_at", .double(step.entry.time)),
            ])
            if let detail { line["detail"] = .string(detail) }
            return .object(line)
        }
        let summary: JSON = [
            "journal": .string(path), "looked_at": .int(steps.count), "ended": .int(steps.count - open.count),
            "resubmitted": .int(count { $0 == .resubmitted }), "ok": .bool(!isTrouble),
        ]
        return open + [summary]
    }

    private static func code(_ action: Reconciliation.Action) -> (String, String?) {
        switch action {
        case .none(.ended(let state)), .none(.alive(let state)): ("none", state.rawValue)
        case .none(.queued): ("none", "queued")
        case .none(.conflict): ("conflict", nil)
        case .none(.unreadable(let why)): ("unreadable", why)
        case .none(.unknown), .wouldResubmit: ("would_resubmit", nil)
        case .resubmitted: ("resubmitted", nil)
        case .known: ("none", "queued")
        case .tooOld: ("too_old", nil)
        case .refused(let why): ("refused", why)
        case .unanswered(let why): ("unanswered", why)
        }
    }
}

extension Reconciliation.Action {
    fileprivate var isAlive: Bool {
        if case .none(.alive) = self { true } else { false }
    }
}
