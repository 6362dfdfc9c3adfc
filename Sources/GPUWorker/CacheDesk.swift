import Dispatch
import JobModel
import Logging
import NATSClient
import Synchronization
import WireJSON

/// The card's cache on the bus: tells how it is and what it holds, and has it saved or warmed when somebody asks.
///
/// All that touches the cache is done on threads of its own, one look and one request of each kind at a time: a disk may
/// hang, and the worker must not.
final class CacheDesk: Sendable {
    private struct State {
        var subscriptions: [NATSSubscription] = []
        /// What jobs have asked for, the newest last.
        var asked: [CacheKey] = []
        var isLooking = false
        var underWay: Set<CacheRequest.Verb> = []
        /// The kind of the last note that was told to people.
        var told: Substring?
    }

    /// Names that jobs asked for of which the worker looks whether they are there.
    private static let askedLimit = 64

    private let context: WorkerContext
    private let survey: CacheSurvey
    private let service: CacheService
    private let queue = DispatchQueue(label: "gpu-worker.cache", attributes: .concurrent)
    private let state = Mutex(State())

    init(context: WorkerContext) {
        let settings = context.settings
        let ram = settings.settings[WorkerSettings.Keys.ramRoot]
        self.context = context
        survey = CacheSurvey(path: settings.cacheDirectory, notes: "\(ram)/gpu\(settings.number).state")
        service = CacheService(socketPath: "\(ram)/ask.sock", number: settings.number)
    }

    private var isEnabled: Bool { context.settings.settings[WorkerSettings.Keys.tellsCache] }

    func start() throws(NATSError) {
        guard isEnabled else { return }
        for verb in CacheRequest.Verb.allCases {
            let heard = try context.connection.subscribe(context.names.cacheRequest(verb)) { [weak self] in
                self?.take(verb, $0)
            }
            state.withLock { $0.subscriptions.append(heard) }
        }
    }

    func stop() {
        let subscriptions = state.withLock { state in
            defer { state.subscriptions = [] }
            return state.subscriptions
        }
        for subscription in subscriptions { subscription.cancel() }
    }

    /// Tells how the cache is, again and again, until its task is cancelled.
    func run() async {
        let interval = context.settings.settings.duration(WorkerSettings.Keys.cacheHeartbeat)
        await WorkerPulse.repeating(every: interval) { beat() }
    }

    /// A job that begins reads these.
    func note(_ keys: [CacheKey]) {
        guard !keys.isEmpty else { return }
        state.withLock { state in
            state.asked.removeAll { keys.contains($0) }
            state.asked = Array((state.asked + keys).suffix(Self.askedLimit))
        }
    }

    /// Looks at the cache and tells the pool, unless a look is under way.
    func beat() {
        guard isEnabled else { return }
        let asked = state.withLock { state -> [CacheKey]? in
            if state.isLooking { return nil }
            state.isLooking = true
            return state.asked
        }
        guard let asked else { return }
        queue.async { [self] in
            let findings = survey.look(asked: asked)
            state.withLock { $0.isLooking = false }
            tell(findings)
        }
    }

    private func tell(_ findings: CacheSurvey.Findings) {
        let report = CacheReport(
            gpu: context.gpu,
            incarnation: context.incarnation,
            mode: findings.mode,
            path: survey.path,
            sizeBytes: findings.sizeBytes,
            usedBytes: findings.usedBytes,
            sync: findings.sync,
            note: findings.note,
            holds: findings.holds,
            isCut: findings.isCut,
            time: context.clock.now().seconds
        )
        context.publish(report.encoded(), on: context.names.cacheHeartbeat)
        // Told once for each kind, though its numbers change.
        let kind = findings.note?.prefix { $0 != ":" }
        let isNews = state.withLock { state in
            defer { state.told = kind }
            return state.told != kind
        }
        if isNews, let note = findings.note { context.notice("cache: \(note)") }
    }

    // MARK: requests

    private func take(_ verb: CacheRequest.Verb, _ message: NATSMessage) {
        let request: CacheRequest
        do throws(MalformedMessage) {
            request = try CacheRequest(verb, parsing: message.payload)
        } catch {
            return answer(verb, message.replySubject, CacheService.Answer(ok: false, text: error.description))
        }
        guard request.gpu == context.gpu else {
            // Another card's worker answers; but a bare number names no card where they have their nodes' names.
            if request.gpu.text == String(context.settings.number) {
                let text = "card \(request.gpu) could be \(context.gpu): here cards have the names of their nodes"
                answer(verb, message.replySubject, CacheService.Answer(ok: false, text: text))
            }
            return
        }
        guard state.withLock({ $0.underWay.insert(verb).inserted }) else {
            let busy = CacheService.Answer(ok: false, text: "a \(verb.rawValue) of this cache is under way")
            return answer(verb, message.replySubject, busy)
        }
        queue.async { [self] in
            let result = carryOut(verb)
            _ = state.withLock { $0.underWay.remove(verb) }
            answer(verb, message.replySubject, result)
            beat()
        }
    }

    private func carryOut(_ verb: CacheRequest.Verb) -> CacheService.Answer {
        do throws(CacheService.Missing) {
            return try service.ask(verb)
        } catch {
            if verb == .sync, survey.look(asked: []).mode == .plain {
                return CacheService.Answer(ok: true, text: "a plain directory on disk: there is nothing to save")
            }
            return CacheService.Answer(
                ok: false,
                text: "\(service.socketPath) does not exist; start gpucache-ask.socket on this machine"
            )
        }
    }

    /// On the subject of what was done, or of what was not, and to whoever asked.
    private func answer(_ verb: CacheRequest.Verb, _ replySubject: String?, _ answer: CacheService.Answer) {
        var body: JSONObject = ["gpu_id": context.gpu.json, "ok": .bool(answer.ok)]
        if answer.ok { body["note"] = .string(answer.text) } else { body["error"] = .string(answer.text) }
        body["ts"] = .double(context.clock.now().seconds)
        let payload = JSON.object(body).encoded()
        context.publish(payload, on: answer.ok ? context.names.cacheDone(verb) : context.names.cacheError(verb))
        if let replySubject { context.publish(payload, on: replySubject) }
    }
}
