import JobModel
import NATSClient
import WireJSON

/// Why a request to the leading maestro did not work.
package enum MaestroAPIError: Error, Equatable, CustomStringConvertible {
    /// Nobody answers on the subject: no maestro runs, or none leads.
    case noMaestro
    /// The leader says no.
    case refused(code: String, reason: String)
    /// No answer before the deadline, or none that can be read; what was asked for may have been done.
    case unanswered(String)

    package var description: String {
        switch self {
        case .noMaestro: "no maestro leads this pool; start one, or see `maestroctl status`"
        case .refused(_, let reason): reason
        case .unanswered(let reason): "the leading maestro did not answer: \(reason)"
        }
    }

    /// Nobody said anything, which is no reason not to tell what can be known without.
    package var isSilence: Bool {
        if case .refused = self { false } else { true }
    }

    /// The silence in words, for the beginning of a sentence.
    package var silence: String { self == .noMaestro ? "No maestro leads this pool" : "No maestro answers" }
}

/// Requests to the leading maestro on `maestro.api.*`.
package struct MaestroAPI: Sendable {
    private let connection: NATSConnection
    private let names: PoolNames
    /// How long one request may wait for its answer.
    package var deadline: Duration

    package init(_ connection: NATSConnection, names: PoolNames, deadline: Duration = .seconds(5)) {
        self.connection = connection
        self.names = names
        self.deadline = deadline
    }

    /// Who leads, and how much there is to do.
    package struct Status: Sendable {
        package let incarnation: String
        package let host: String
        package let processID: Int
        package let version: String
        /// Jobs that wait.
        package let waiting: Int
        /// Jobs that are scheduled or running.
        package let inFlight: Int
        package let gpusAlive: Int
        package let isQueueFull: Bool
        /// The whole answer.
        package let json: JSON

        package init(_ json: JSON) {
            incarnation = json["incarnation"]?.stringValue ?? ""
            host = json["host"]?.stringValue ?? ""
            processID = json.number("pid")
            version = json["version"]?.stringValue ?? ""
            waiting = json.number("qsize")
            inFlight = json.number("inflight")
            gpusAlive = json.number("gpus_alive")
            isQueueFull = json["queue_full"]?.boolValue ?? false
            self.json = json
        }
    }

    package func status() async throws(MaestroAPIError) -> Status {
        Status(try await request("status", JSONObject()))
    }

    /// The newest jobs as the leader names them.
    package struct JobList: Sendable {
        /// Where a job's record is found.
        package enum Place: Sendable, Hashable {
            /// Of a job that has ended: its record stays where it is until it is removed.
            case sequence(UInt64)
            case job(JobID)
        }

        /// The leader has seen every record up to this sequence.
        package let through: UInt64
        /// How many jobs there are of the kind that was asked for.
        package let total: Int
        /// Newest first.
        package let places: [Place]

        init?(_ json: JSON) {
            guard let through = json["through"]?.unsignedValue, let jobs = json["jobs"]?.arrayValue else { return nil }
            self.through = through
            total = json.number("total")
            places = jobs.compactMap { job in
                job["sequence"]?.unsignedValue.map { .sequence($0) }
                    ?? job["task_id"]?.stringValue.flatMap { JobID($0) }.map { .job($0) }
            }
            guard places.count == jobs.count else { return nil }
        }
    }

    /// Most jobs that ``jobs(in:limit:)`` can be asked for.
    package static let longestList = 1000

    /// Where the records of the newest jobs are.
    /// - Parameters:
    ///   - states: only jobs in one of these; empty for all.
    ///   - limit: how many at most, 1 to ``longestList``.
    package func jobs(in states: Set<JobState>, limit: Int) async throws(MaestroAPIError) -> JobList {
        let names = states.map(\.rawValue).sorted().map { JSON.string($0) }
        let json = try await request("list", ["states": .array(names), "limit": .int(limit)])
        guard let list = JobList(json) else { throw .unanswered("its answer is no list of jobs") }
        return list
    }

    /// The cards as the leader sees them.
    package func cards() async throws(MaestroAPIError) -> [CardView] {
        let json = try await request("gpus", JSONObject())
        return (json["gpus"]?.arrayValue ?? []).compactMap { CardView($0) }
    }

    /// One card, with its history.
    package func card(_ gpu: GPUID) async throws(MaestroAPIError) -> CardView {
        let json = try await request("gpu", ["gpu_id": gpu.json])
        guard let card = CardView(json) else { throw .unanswered("its answer names no card") }
        return card
    }

    /// What a person can do with a card.
    package enum CardVerb: String, Sendable {
        case cordon, uncordon, drain, quarantine, clear
    }

    /// Changes what may be done with a card; returns when that is stored.
    /// - Parameter deadline: for a drain: when its running jobs are taken from it; nil waits for their ends.
    /// - Returns: the card's state after that.
    package func control(
        _ verb: CardVerb,
        _ gpu: GPUID,
        reason: String,
        deadline: Duration? = nil
    ) async throws(MaestroAPIError) -> String {
        var body: JSONObject = ["gpu_id": gpu.json, "reason": .string(reason)]
        body["deadline"] = deadline.map { .double($0.inSeconds) }
        return try await request(verb.rawValue, body)["state"]?.stringValue ?? ""
    }

    /// Cancels a job.
    /// - Returns: `cancelled`, or `running` while its worker kills it; another terminal state when it had ended before.
    package func cancel(_ job: JobID, reason: String) async throws(MaestroAPIError) -> JobState {
        let answer = try await request("cancel", ["task_id": .string(job.text), "reason": .string(reason)])
        guard let state = answer["state"]?.stringValue.flatMap(JobState.init(rawValue:)) else {
            throw .unanswered("its answer names no state")
        }
        return state
    }

    /// Why a job is where it is: `state`, `reason` and, while it waits, `cards` with what speaks against each.
    package func why(_ job: JobID) async throws(MaestroAPIError) -> JSON {
        try await request("why", ["task_id": .string(job.text)])
    }

    private func request(_ verb: String, _ body: JSONObject) async throws(MaestroAPIError) -> JSON {
        let answer: NATSMessage
        do {
            answer = try await connection.request(
                JSON.object(body).encoded(),
                to: names.request(verb),
                deadline: deadline
            )
        } catch {
            throw error.code == .noResponders ? .noMaestro : .unanswered(error.description)
        }
        let json: JSON
        do {
            json = try JSON(parsing: answer.payload)
        } catch {
            throw .unanswered("its answer is \(error)")
        }
        guard json["ok"]?.boolValue == true else {
            throw .refused(
                code: json["code"]?.stringValue ?? "",
                reason: json["error"]?.stringValue ?? "the leading maestro refused without a reason"
            )
        }
        return json
    }
}

extension JSON {
    fileprivate func number(_ key: String) -> Int { self[key]?.intValue.flatMap { Int(exactly: $0) } ?? 0 }
}
