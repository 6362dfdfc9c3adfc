import JobModel

/// The watchdog of a fenced attempt, after `watchdog.c`: a process of its own that ends the attempt at its time, also
/// when the worker is stopped, and at once when the worker is dead.
final class JobWatchdog {
    /// When the attempt is sent SIGTERM, by the time of the simulation, and how long from then to SIGKILL.
    struct Order {
        let due: Timestamp
        let grace: Duration
    }

    private unowned let host: SimulatedWorker
    private let attempt: AttemptID
    /// The worker's process that has made it.
    private let life: Int
    private var order: Order
    private var process: SimulatedWorker.Process?
    private var isEnding = false
    private var isDismissed = false

    init(of attempt: AttemptID, on host: SimulatedWorker, _ order: Order) {
        self.attempt = attempt
        self.host = host
        self.order = order
        life = host.life
        wait()
    }

    private var cluster: Cluster { host.cluster }

    /// The process that it is for.
    func guards(_ process: SimulatedWorker.Process) {
        self.process = process
        if isEnding { host.kill(process) }
    }

    /// What has begun to end is not given more time.
    func take(_ next: Order) {
        guard !isEnding else { return }
        order = next
        wait()
    }

    /// Nothing of the attempt is left.
    func dismiss() { isDismissed = true }

    func parentDied() {
        host.onHost(after: cluster.chance.seconds(0...0.05)) { [self] in end(because: "its worker is dead") }
    }

    /// It gets the processor a little late.
    private func wait() {
        let due = order.due
        let late = cluster.chance.seconds(0...0.3)
        host.onHost(after: max(due - cluster.now, .zero) + late) { [self] in
            guard due == order.due else { return }
            // Stopped in the middle of starting the process: it may not go on with that later.
            if process == nil, host.life == life, !isDismissed { killWorker() }
            end(because: "its time is up")
        }
    }

    private func killWorker() {
        guard cluster.mutant != .watchdogsSleep else { return }
        cluster.cover("a watchdog kills its worker")
        cluster.tell("a watchdog of \(host.name) kills it: it hangs in the midst of a start")
        host.crash(withHost: false)
        cluster.agenda.after(cluster.chance.seconds(1...5)) { [host] in host.start() }
    }

    private func end(because reason: String) {
        guard !isEnding, !isDismissed, cluster.mutant != .watchdogsSleep else { return }
        isEnding = true
        guard let process, process.isAlive else { return }
        cluster.cover("a watchdog ends an attempt: \(reason)")
        let name = attempt.text.prefix(4)
        cluster.tell("the watchdog of attempt \(name) on \(host.name) ends it: \(reason)", process.job)
        host.terminate(process)
        host.onHost(after: order.grace) { [self] in host.kill(process) }
    }
}

extension SimulatedWorker {
    /// Has the attempt end at that time by the worker's clock, whatever becomes of the worker.
    func fence(_ attempt: AttemptID, until: Timestamp, grace: Duration) {
        let order = JobWatchdog.Order(due: moment(of: until), grace: grace)
        fences[attempt] = order
        watchdogs[attempt]?.take(order)
    }
}
