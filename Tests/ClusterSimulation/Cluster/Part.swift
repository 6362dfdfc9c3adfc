import JobModel

/// A process on a host of its own: it can be started, killed, stopped for a while, and cut off.
class Part {
    /// The way between a host and the server is interrupted.
    struct Cut {
        let until: Timestamp
        let outward: Bool
        let inward: Bool
    }

    let name: String
    unowned let cluster: Cluster
    private(set) var isRunning = false
    private(set) var life = 0
    private(set) lazy var connection = Connection(part: self)
    /// How far the host's wall clock is off.
    var wallOffset = Duration.zero
    /// How fast the host's clock runs.
    let rate: Double
    var cut: Cut?
    private var frozenUntil: Timestamp?
    /// What is to be done when the process goes on, in its order.
    private var deferred: [() -> Void] = []
    private var lastTrouble = Agenda.beginning
    private var base = Agenda.beginning
    private var startedAt = Agenda.beginning

    init(name: String, cluster: Cluster) {
        self.name = name
        self.cluster = cluster
        rate = 1 + (cluster.chance.unit() - 0.5) * 0.01
    }

    /// The process starts.
    func begin() {
        life += 1
        isRunning = true
        frozenUntil = nil
        base = cluster.now + wallOffset
        startedAt = cluster.now
        connection = Connection(part: self)
        connection.open()
    }

    /// The process is gone, however that came.
    func end() {
        guard isRunning else { return }
        isRunning = false
        life += 1
        connection.close()
    }

    // MARK: time

    /// The time by the process's own clock, which never jumps.
    var clock: Timestamp { base + .nanoseconds(Int64(Double(cluster.now.nanoseconds - startedAt.nanoseconds) * rate)) }

    /// When the process's clock shows that time, or a moment later.
    func moment(of time: Timestamp) -> Timestamp {
        let left = Double((time - clock).wholeNanoseconds) / rate
        guard left < 1e17 else { return Timestamp(nanoseconds: .max) }
        return cluster.now + .nanoseconds(Int64(max(0, left)) + 2)
    }

    func after(_ delay: Duration, _ step: @escaping () -> Void) {
        let life = life
        cluster.agenda.after(delay) { [self] in take(step, life) }
    }

    /// Does something in this life of the process, as soon as it is not stopped.
    func take(_ step: @escaping () -> Void) { take(step, life) }

    private func take(_ step: @escaping () -> Void, _ life: Int) {
        guard isRunning, life == self.life else { return }
        guard let end = frozenUntil, end > cluster.now else { return step() }
        if deferred.isEmpty { cluster.agenda.at(end) { [self] in goOn() } }
        deferred.append { [self] in take(step, life) }
    }

    /// Does what was deferred, unless it is stopped for longer.
    private func goOn() {
        if let end = frozenUntil, end > cluster.now { return cluster.agenda.at(end) { [self] in goOn() } }
        let steps = deferred
        deferred = []
        for step in steps { step() }
    }

    /// Half a second to one and a half, as after each failure that may pass.
    func afterFailure(_ step: @escaping () -> Void) { after(cluster.chance.seconds(0.5...1.5), step) }

    var isFrozen: Bool { frozenUntil.map { $0 > cluster.now } ?? false }

    /// SIGSTOP, and SIGCONT after a while.
    func freeze(_ duration: Duration) {
        guard isRunning else { return }
        cluster.tell("\(name) is stopped for \(duration.text)")
        frozenUntil = cluster.now + duration
        lastTrouble = max(lastTrouble, cluster.now + duration)
    }

    /// The way to the server is interrupted.
    func cutOff(_ duration: Duration, outward: Bool, inward: Bool) {
        let way = outward && inward ? "both ways" : outward ? "towards the server" : "from the server"
        cluster.tell("\(name) is cut off for \(duration.text), \(way)")
        cut = Cut(until: cluster.now + duration, outward: outward, inward: inward)
        lastTrouble = max(lastTrouble, cluster.now + duration)
        connection.noteCut()
    }

    var isCutOutward: Bool { cut.map { $0.outward && $0.until > cluster.now } ?? false }
    var isCutInward: Bool { cut.map { $0.inward && $0.until > cluster.now } ?? false }
    var isCut: Bool { cut.map { $0.until > cluster.now } ?? false }

    /// Whether something may have kept it from being heard, or from hearing, of late.
    func isDisturbed(within duration: Duration) -> Bool {
        let since = max(cluster.disturbedUntil, startedAt, lastTrouble)
        return isFrozen || isCut || !cluster.server.isUp || cluster.now - since < duration
    }

    /// Since when nothing has kept it from asking and hearing; nil while something does.
    var reachableSince: Timestamp? {
        guard isRunning, !isFrozen, !isCut, connection.isConnected else { return nil }
        return max(startedAt, lastTrouble, connection.connectedAt, cluster.weather.lastTrouble)
    }

    /// Nothing is in its way from now on.
    func heal() {
        lastTrouble = cluster.now
        frozenUntil = nil
        cut = nil
        cluster.agenda.at(cluster.now) { [self] in goOn() }
    }
}

extension Duration {
    /// For a person.
    var text: String {
        let milliseconds = wholeNanoseconds / 1_000_000
        return "\(milliseconds / 1000).\(String(1000 + abs(milliseconds) % 1000).dropFirst()) s"
    }
}
