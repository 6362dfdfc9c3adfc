/// Something about a pull consumer that its owner may want to act on. Pulling goes on in any case.
package enum PullConsumerEvent: Sendable, Equatable {
    /// The consumer or its stream is gone: make it anew and call ``PullConsumer/retryNow()``.
    case consumerMissing
    /// The server said nothing for two heartbeats; the request was sent again.
    case missedHeartbeats
    /// The server refused a request, such as one that exceeds a limit of the consumer.
    case refused(status: Int, description: String)
}

/// Decides when to ask for how many messages. Pure: events in, actions out, time in nanoseconds from outside.
struct PullState {
    struct Options {
        /// The most messages that are asked for at one time.
        var capacity: Int
        /// How long one request stands at the server.
        var expires: UInt64
        var heartbeat: UInt64
    }

    enum Event {
        case demanded(Int)
        case connected
        case disconnected
        case delivered
        /// The server is idle and lives.
        case heartbeat
        /// The server ended a request; `undelivered` is what it says was left of it.
        case ended(request: UInt64, status: Int, description: String, undelivered: Int?)
        /// A request could not be sent.
        case notSent(request: UInt64)
        /// The answer to `checkConsumer`.
        case consumerChecked(exists: Bool)
        /// The owner made the consumer anew.
        case consumerMade
        case timePassed
    }

    enum Action: Equatable {
        case pull(request: UInt64, batch: Int)
        case checkConsumer
        case report(PullConsumerEvent)
    }

    private struct Request {
        let number: UInt64
        var remaining: Int
        let end: UInt64
    }

    private let options: Options
    private(set) var demand = 0
    private var isConnected = false
    private var requests: [Request] = []
    private var lastRequest: UInt64 = 0
    private var lastHeard: UInt64 = 0
    private var failures = 0
    /// No request before this time.
    private var pauseEnd: UInt64 = 0

    init(_ options: Options) { self.options = options }

    /// How many messages the server has been asked for and has not sent.
    var outstanding: Int { requests.reduce(0) { $0 + $1.remaining } }

    /// When `timePassed` is due, if nothing else happens before.
    var wakeTime: UInt64? {
        if !isConnected { return nil }
        let next = wanted > 0 ? pauseEnd : .max
        if requests.isEmpty { return next == .max ? nil : next }
        return min(next, silenceEnd, requests.reduce(.max) { min($0, $1.end) })
    }

    /// How many messages to ask for now. None before half of what is wanted is used up: few requests at a high rate,
    /// no delay at a low one.
    private var wanted: Int {
        let target = min(demand, options.capacity)
        let outstanding = outstanding
        return outstanding <= target / 2 ? target - outstanding : 0
    }

    /// Two heartbeats and a half: the server's and our clock need not tick alike.
    private var silenceEnd: UInt64 { lastHeard + options.heartbeat * 5 / 2 }

    mutating func handle(_ event: Event, at now: UInt64) -> [Action] {
        var actions: [Action] = []
        switch event {
        case .demanded(let count): demand += max(0, count)
        case .connected: isConnected = true
        case .disconnected:
            isConnected = false
            requests = []
        case .delivered:
            heard(now)
            demand = max(0, demand - 1)
            use(1)
        case .heartbeat: heard(now)
        case .ended(let number, let status, let description, let undelivered):
            lastHeard = now
            end(number, undelivered: undelivered)
            actions += judge(status, description, at: now)
        case .notSent(let number):
            requests.removeAll { $0.number == number }
            pause(at: now)
        case .consumerChecked(let exists): if !exists { actions.append(.report(.consumerMissing)) }
        case .consumerMade:
            requests = []
            failures = 0
            pauseEnd = now
        case .timePassed: actions += checkTime(now)
        }
        return actions + topUp(now)
    }

    private mutating func heard(_ now: UInt64) {
        lastHeard = now
        failures = 0
    }

    /// Takes delivered messages off the requests, oldest first, as most servers serve them. Which request a message
    /// answered cannot be seen; the sum is right either way, and `end` corrects the parts.
    private mutating func use(_ count: Int) {
        var left = count
        while left > 0, !requests.isEmpty {
            let used = min(left, requests[0].remaining)
            requests[0].remaining -= used
            left -= used
            if requests[0].remaining == 0 { requests.removeFirst() }
        }
    }

    private mutating func end(_ number: UInt64, undelivered: Int?) {
        guard let index = requests.firstIndex(where: { $0.number == number }) else {
            // Taken for used up, while another one was: what it says it had left is missing there.
            return use(undelivered ?? 0)
        }
        let request = requests.remove(at: index)
        let surplus = request.remaining - (undelivered ?? request.remaining)
        if surplus > 0, !requests.isEmpty { requests[0].remaining += surplus }
    }

    private mutating func judge(_ status: Int, _ description: String, at now: UInt64) -> [Action] {
        let text = description.lowercased()
        switch status {
        case 408: return []
        case 409 where text.contains("message size exceeds"): return []
        case 409 where text.contains("leadership change") || text.contains("server shutdown"):
            requests = []
            pause(at: now)
            return []
        case 409 where text.contains("consumer deleted"), 503:
            requests = []
            pause(at: now)
            return [.report(.consumerMissing)]
        case 404:
            pause(at: now)
            return []
        default:
            pause(at: now)
            return [.report(.refused(status: status, description: description))]
        }
    }

    /// 100 ms, doubled with each failure in a row up to 6.4 s.
    private mutating func pause(at now: UInt64) {
        pauseEnd = now + 100_000_000 << min(UInt64(failures), 6)
        failures += 1
    }

    private mutating func checkTime(_ now: UInt64) -> [Action] {
        requests.removeAll { $0.end <= now }
        guard isConnected, !requests.isEmpty, silenceEnd <= now else { return [] }
        // An old server is silent too when the consumer does not exist.
        requests = []
        return [.report(.missedHeartbeats), .checkConsumer]
    }

    private mutating func topUp(_ now: UInt64) -> [Action] {
        let batch = wanted
        guard isConnected, now >= pauseEnd, batch > 0 else { return [] }
        if requests.isEmpty { lastHeard = now }
        lastRequest += 1
        // The server's own end of the request comes first, if it lives.
        requests.append(Request(number: lastRequest, remaining: batch, end: now + options.expires + options.heartbeat))
        return [.pull(request: lastRequest, batch: batch)]
    }
}
