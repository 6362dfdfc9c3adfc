import Synchronization

/// Something that a lane's thread does, and that may take long.
protocol LaneJob: AnyObject, Sendable {
    /// Announces a run; false when an earlier one has not come back yet.
    func prepare() -> Bool
    /// Runs on a thread of the lane; never twice at a time.
    func run()
    /// The sweep is over: a run that was announced and has not come back was missed.
    func settle()
}

/// One thing that is read from a card, with its last value and its errors.
final class Sensor<Value: Sendable>: LaneJob {
    let name: String
    private let read: @Sendable () throws(SensorFault) -> Value
    private let state: Mutex<State>

    private struct State {
        var value: Value?
        var readAt: ContinuousClock.Instant?
        var fault: SensorFault?
        /// Announced, and not come back since.
        var isPending = false
        var isRunning = false
        /// How often each error was seen, by its code.
        var errors: [String: Int] = [:]

        mutating func failed(_ fault: SensorFault) {
            self.fault = fault
            if fault.isError { errors[fault.code, default: 0] += 1 }
        }
    }

    /// - Parameter read: reads the sensor; it may block for as long as the driver wants.
    init(_ name: String, read: @escaping @Sendable () throws(SensorFault) -> Value) {
        self.name = name
        self.read = read
        state = Mutex(State())
    }

    func prepare() -> Bool {
        state.withLock { state in
            state.isPending = true
            return !state.isRunning
        }
    }

    func run() {
        state.withLock { $0.isRunning = true }
        let result: Result<Value, SensorFault>
        do {
            result = .success(try read())
        } catch {
            result = .failure(error)
        }
        let now = ContinuousClock.now
        state.withLock { state in
            state.isRunning = false
            state.isPending = false
            switch result {
            case .success(let value):
                state.value = value
                state.readAt = now
                state.fault = nil
            case .failure(let fault): state.failed(fault)
            }
        }
    }

    func settle() {
        state.withLock { state in
            guard state.isPending else { return }
            state.isPending = false
            state.failed(.timedOut)
        }
    }

    /// What is known now. A value older than `maximumAge` is not told any more.
    func reading(at now: ContinuousClock.Instant, maximumAge: Duration) -> Reading<Value> {
        state.withLock { state in
            guard let value = state.value, let readAt = state.readAt else {
                return Reading(value: nil, age: nil, fault: state.fault ?? .unsupported)
            }
            let age = max(.zero, now - readAt)
            guard age <= maximumAge else { return Reading(value: nil, age: nil, fault: state.fault ?? .timedOut) }
            return Reading(value: value, age: age, fault: state.fault)
        }
    }

    var errors: [String: Int] { state.withLock { $0.errors } }
}
