import JobModel
import JobTransport
import Logging
import NATSClient
import SchedulerCore
import ServiceSupport
import Synchronization
import WireJSON

/// Takes the requests on `maestro.api.*` and brings the core's answers back to those who asked.
final class RequestDesk: Sendable {
    private let context: MaestroContext
    private let mailbox: Mailbox<SchedulerEvent>
    private let pending = PendingRequests(limit: 4096)
    private let subscription = Mutex<NATSSubscription?>(nil)

    init(context: MaestroContext, mailbox: Mailbox<SchedulerEvent>) {
        self.context = context
        self.mailbox = mailbox
    }

    func start() throws(NATSError) {
        let subscription = try context.connection.subscribe(context.names.request("*")) { [weak self] message in
            self?.take(message)
        }
        self.subscription.withLock { $0 = subscription }
    }

    func stop() {
        pending.removeAll()
        subscription.withLock { $0.take() }?.cancel()
    }

    private func take(_ message: NATSMessage) {
        guard let subject = message.replySubject else { return }
        guard let token = register(subject) else {
            return answer(subject, Self.refusal("overloaded", "too many requests wait for an answer; try again"))
        }
        let verb = message.subject.split(separator: ".").last.map(String.init) ?? ""
        do throws(RequestRefusal) {
            mailbox.send(try Self.event(verb, message.payload, token))
        } catch {
            reply(token, Self.refusal(error.code, error.reason))
        }
    }

    /// A token for somebody who waits for an answer at that subject; nil when too many do.
    func register(_ subject: String) -> RequestToken? { pending.add(subject) }

    /// Leaves a request unanswered.
    func drop(_ token: RequestToken) { _ = pending.take(token) }

    /// Answers a request, once.
    func reply(_ token: RequestToken, _ body: JSON) {
        guard let subject = pending.take(token) else { return }
        guard case .object(var object) = body else { return }
        object["incarnation"] = .string(context.incarnation.text)
        object["host"] = .string(HostInfo.name)
        object["pid"] = .int(HostInfo.processID)
        object["version"] = .string(ProgramVersion.text)
        answer(subject, .object(object))
    }

    private func answer(_ subject: String, _ body: JSON) {
        do throws(NATSError) {
            try context.connection.publish(body.encoded(), to: subject)
        } catch {
            context.logger.debug("an answer was not sent", metadata: ["error": "\(error)"])
        }
    }

    private static func refusal(_ code: String, _ reason: String) -> JSON {
        ["ok": false, "code": .string(code), "error": .string(reason)]
    }

    private struct RequestRefusal: Error {
        let code: String
        let reason: String
    }

    private static func event(
        _ verb: String,
        _ payload: [UInt8],
        _ token: RequestToken
    ) throws(RequestRefusal) -> SchedulerEvent {
        switch verb {
        case "status": return .statusAsked(token)
        case "list": return .jobsAsked(try query(try object(payload)), token)
        case "gpus": return .cardsAsked(token)
        case "gpu": return .cardAsked(try card(try object(payload)), token)
        case "cancel":
            let body = try object(payload)
            return .cancelAsked(try job(body), reason: try reason(body), token)
        case "why": return .whyAsked(try job(try object(payload)), token)
        default:
            guard let verb = CardRequest.Verb(rawValue: verb) else { throw unknown(verb) }
            let body = try object(payload)
            let delay = verb == .drain ? try delay(body) : nil
            return .cardRequest(CardRequest(verb, try card(body), reason: try reason(body), delay: delay), token)
        }
    }

    private static func unknown(_ verb: String) -> RequestRefusal {
        let verbs = ["status", "list", "gpus", "gpu", "cancel", "why"] + CardRequest.Verb.allCases.map(\.rawValue)
        return RequestRefusal(
            code: "unknown_request",
            reason: "there is no request \(verb); there are \(verbs.joined(separator: ", "))"
        )
    }

    private static func object(_ payload: [UInt8]) throws(RequestRefusal) -> JSON {
        do {
            return try JSON(parsing: payload)
        } catch {
            throw RequestRefusal(code: "bad_request", reason: "the request is \(error)")
        }
    }

    private static func query(_ body: JSON) throws(RequestRefusal) -> JobQuery {
        var query = JobQuery(limit: 50)
        if let field = body["limit"], !field.isNull {
            guard let limit = field.intValue, (1...JobQuery.longest).contains(Int(limit)) else {
                throw RequestRefusal(
                    code: "bad_request",
                    reason: "limit must be a whole number from 1 to \(JobQuery.longest)"
                )
            }
            query.limit = Int(limit)
        }
        if let field = body["states"], !field.isNull {
            guard let names = field.arrayValue?.map(\.stringValue) else {
                throw RequestRefusal(code: "bad_request", reason: "states must be an array of states")
            }
            for name in names {
                guard let state = name.flatMap(JobState.init(rawValue:)) else {
                    let known = JobState.allCases.map(\.rawValue).joined(separator: ", ")
                    throw RequestRefusal(code: "bad_request", reason: "states must be some of \(known)")
                }
                query.states.insert(state)
            }
        }
        return query
    }

    private static func job(_ body: JSON) throws(RequestRefusal) -> JobID {
        guard let id = body["task_id"]?.stringValue.flatMap({ JobID($0) }) else {
            throw RequestRefusal(
                code: "bad_request",
                reason: "the request names no job: task_id is missing or not an id"
            )
        }
        return id
    }

    private static func card(_ body: JSON) throws(RequestRefusal) -> GPUID {
        guard let gpu = body["gpu_id"].flatMap({ GPUID($0) }) else {
            throw RequestRefusal(
                code: "bad_request",
                reason: "the request names no card: gpu_id is missing, or neither a number from 0 nor a name"
            )
        }
        return gpu
    }

    /// Longest reason that is taken, in bytes: it is kept in a record and told to people.
    private static let reasonLimit = 1024

    private static func reason(_ body: JSON) throws(RequestRefusal) -> String {
        guard let field = body["reason"], !field.isNull else { return "" }
        guard let reason = field.stringValue, reason.utf8.count <= reasonLimit else {
            throw RequestRefusal(code: "bad_request", reason: "reason must be a text of at most \(reasonLimit) bytes")
        }
        return reason
    }

    /// Until when a drain waits for running jobs; nil for ever.
    private static func delay(_ body: JSON) throws(RequestRefusal) -> Duration? {
        guard let field = body["deadline"], !field.isNull else { return nil }
        let longest = TaskLimits.timeout.upperBound
        guard let seconds = field.doubleValue, (0...longest).contains(seconds) else {
            throw RequestRefusal(
                code: "bad_request",
                reason: "deadline must be a number of seconds from now, 0 to \(Int(longest))"
            )
        }
        return .inSeconds(seconds)
    }
}
