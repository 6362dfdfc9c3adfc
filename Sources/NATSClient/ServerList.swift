/// The servers of one cluster, in the order in which a connection to one of them is tried.
struct ServerList: Sendable {
    private let configured: [String]
    /// Those that a server has named, without those that are configured.
    private var discovered: [String] = []
    /// The one that was connected to last.
    private var last: Substring?

    init(_ configured: [String]) { self.configured = configured }

    var count: Int { configured.count + discovered.count }

    /// - Parameter servers: what a server says that its cluster consists of; nothing if it does not say.
    mutating func discover(_ servers: [String]) {
        guard !servers.isEmpty, let model = configured.first else { return }
        let known = Set(configured.map(ServerURL.place))
        // They take the same user, and encrypt if the first one does.
        let access = model.dropLast(ServerURL.place(of: model).count)
        discovered = servers.map(ServerURL.place).filter { !known.contains($0) }.map { String(access + $0) }
    }

    mutating func noteConnected(to url: String) { last = ServerURL.place(of: url) }

    /// By chance, so that the clients of a cluster spread over it; the one that was lost last of all.
    func inOrder() -> [String] {
        let all = (configured + discovered).shuffled()
        return all.filter { ServerURL.place(of: $0) != last } + all.filter { ServerURL.place(of: $0) == last }
    }
}
