//! A request's whole way: admitted, routed, given to a version, answered, counted once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version as HttpVersion};
use hyper::body::Incoming;

use super::account::Account;
use super::attempt::{Head, Terms, Tried};
use super::body::{BodyWatch, DownBody, UpBody};
use super::headers::{set_cookie, strip_hop_by_hop, to_instance, wants_upgrade};
use super::pick::{Acquired, Choice, Failure, Seen, Ticket};
use super::route::host_only;
use super::upstream::Version;
use super::{Proxy, account::Broken};
use crate::counts::Outcome;

/// Tries beyond the first, on one version.
const RETRIES: usize = 3;

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entrance {
    pub(crate) listener: SocketAddr,
    pub(crate) peer: IpAddr,
    pub(crate) https: bool,
}

/// A request on its way to an instance.
struct Job {
    /// Gone while and after it was sent.
    message: Option<Request<UpBody>>,
    /// What is sent again if need be; only of requests that may be repeated.
    replay: Option<(Method, Uri, HeaderMap)>,
    watch: Option<Arc<BodyWatch>>,
    /// No more pooled connections: one has failed.
    fresh: bool,
}

/// How a version has served.
enum Served {
    Answer(Box<Head>),
    /// The weights have moved away from it before anything was tried.
    Moved,
    Failed(Failure),
    ClientGone,
    ClientSlow,
}

impl Proxy {
    /// Never fails: whatever happens is an answer.
    pub(crate) async fn handle(
        &self,
        entrance: Entrance,
        request: Request<Incoming>,
    ) -> Response<DownBody> {
        let mut response = match self.admit(entrance, &request) {
            Ok((host, seen)) => self.serve(entrance, seen, &host, request).await,
            Err((status, text)) => self.refuse(status, &text),
        };
        if self.is_leaving() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    /// Our own answer to what is no version's business.
    fn refuse(&self, status: StatusCode, text: &str) -> Response<DownBody> {
        self.refused.add();
        ours(status, text)
    }

    fn admit(
        &self,
        entrance: Entrance,
        request: &Request<Incoming>,
    ) -> Result<(HeaderValue, Seen), (StatusCode, String)> {
        let refused = |status, text: &str| Err((status, text.to_owned()));
        if request.method() == Method::CONNECT {
            return refused(StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported here");
        }
        if let Some(protocol) = wants_upgrade(request.headers()) {
            let text = format!("upgrading to {protocol} is not supported by this version");
            return refused(StatusCode::NOT_IMPLEMENTED, &text);
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (named, second) = (hosts.next(), hosts.next());
        if second.is_some() {
            return refused(StatusCode::BAD_REQUEST, "more than one Host header");
        }
        let host = match (request.uri().authority(), named) {
            (Some(authority), _) => HeaderValue::from_str(authority.as_str()).ok(),
            (None, Some(named)) => Some(named.clone()),
            (None, None) if request.version() == HttpVersion::HTTP_10 => {
                HeaderValue::from_str(&entrance.listener.to_string()).ok()
            }
            (None, None) => None,
        };
        let Some(host) = host else {
            return refused(StatusCode::BAD_REQUEST, "no Host header");
        };
        let Ok(text) = host.to_str() else {
            return refused(StatusCode::BAD_REQUEST, "a Host header that is not text");
        };
        let view = self.view.load();
        let path = match request.uri().path() {
            "*" => "/",
            path => path,
        };
        let routes = view.listeners.get(&entrance.listener);
        let lane = routes.and_then(|routes| routes.find(&host_only(text), path));
        let Some(lane) = lane else {
            let text = format!("no route for host {} and this path", host_only(text));
            return refused(StatusCode::NOT_FOUND, &text);
        };
        let seen = Seen { generation: view.generation, lane: Arc::clone(lane) };
        Ok((host, seen))
    }

    async fn serve(
        &self,
        entrance: Entrance,
        mut seen: Seen,
        host: &HeaderValue,
        request: Request<Incoming>,
    ) -> Response<DownBody> {
        let ticket = Ticket::draw(&seen.lane, request.headers());
        let mut job = Job::new(request, entrance, host);
        seen.lane.budget.earn();
        loop {
            let Some(choice) = ticket.choose(&seen.lane) else {
                let text = match &ticket {
                    Ticket::Forced(name) => {
                        return self.refuse(
                            StatusCode::NOT_FOUND,
                            &format!("version {name} does not run here"),
                        );
                    }
                    Ticket::Point { .. } => format!("{} is not being served", seen.lane.lane),
                };
                return self.refuse(StatusCode::SERVICE_UNAVAILABLE, &text);
            };
            let mut account = Account::new(&self.counts, &choice.cell, choice.forced);
            let served = self
                .run_on(&mut seen, &choice.version, &mut job, &mut account, !choice.forced)
                .await;
            let mut response = match served {
                Served::Moved => {
                    account.void();
                    continue;
                }
                Served::Answer(head) => answer(&seen, *head, &job, Some(&mut account)),
                Served::Failed(failure) => {
                    self.spare(&mut seen, &choice, &mut job, account, failure).await
                }
                Served::ClientGone => ours(StatusCode::BAD_REQUEST, "the body broke off"),
                Served::ClientSlow => {
                    account.void();
                    self.refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
                }
            };
            if let (Ticket::Point { point, fresh: true }, Some(cookie)) =
                (&ticket, &seen.lane.sticky_cookie)
                && let Some(value) = set_cookie(cookie, *point, entrance.https)
            {
                response.headers_mut().append(header::SET_COOKIE, value);
            }
            return response;
        }
    }

    /// The chosen version has failed: that is counted for it, and its user is spared if the request
    /// can still be sent and another version can serve.
    async fn spare(
        &self,
        seen: &mut Seen,
        choice: &Choice,
        job: &mut Job,
        mut account: Account,
        failure: Failure,
    ) -> Response<DownBody> {
        let lane = seen.lane.lane.clone();
        tracing::debug!(lane, version = choice.version.name, why = failure.why, "request failed");
        let stand_in = seen.lane.stand_in(&choice.version).map(|other| Arc::clone(&other.version));
        let other = stand_in.filter(|_| !choice.forced && job.message.is_some());
        account.retries += u32::from(other.is_some());
        account.settle(failure.outcome);
        if let Some(other) = other {
            let served = self.run_on(seen, &other, job, &mut account, false).await;
            if let Served::Answer(head) = served {
                return answer(seen, *head, job, None);
            }
        }
        let status = match failure.outcome {
            Outcome::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Outcome::Protocol => StatusCode::BAD_GATEWAY,
            Outcome::Head { .. }
            | Outcome::Connect
            | Outcome::Broken
            | Outcome::ClientGone
            | Outcome::Cutover
            | Outcome::Forced => {
                if job.message.is_some() {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::BAD_GATEWAY
                }
            }
        };
        ours(status, &format!("{lane} does not answer: {}", failure.why))
    }

    /// Tries the instances of one version. `by_weight`: only while it has a weight.
    async fn run_on(
        &self,
        seen: &mut Seen,
        version: &Arc<Version>,
        job: &mut Job,
        account: &mut Account,
        by_weight: bool,
    ) -> Served {
        let mut tried = Vec::new();
        let mut failure: Option<Failure> = None;
        job.fresh = false;
        for attempt in 0..=RETRIES {
            let must_weigh = by_weight && attempt == 0;
            let (under_way, message) = match self.acquire(seen, version, &tried, must_weigh) {
                Acquired::Taken(under_way) => match job.message.take() {
                    Some(message) => (under_way, message),
                    None => break,
                },
                Acquired::Moved => return Served::Moved,
                Acquired::Nobody(nobody) => {
                    return Served::Failed(failure.unwrap_or(nobody));
                }
            };
            if attempt > 0 && !account.is_settled() {
                account.retries += 1;
            }
            let instance = Arc::clone(under_way.instance());
            let terms = Terms {
                fresh: job.fresh,
                repeatable: job.replay.is_some(),
                timeout: seen.lane.timeout,
                watch: job.watch.as_deref(),
            };
            let (outcome, reused, why) = match self.attempt(under_way, message, &terms).await {
                Tried::Head(head) => return Served::Answer(head),
                Tried::ClientGone => return Served::ClientGone,
                Tried::ClientSlow => return Served::ClientSlow,
                Tried::Unsent { message, reused, why } => {
                    job.message = Some(*message);
                    (Outcome::Connect, reused, why)
                }
                Tried::Lost { outcome, reused, why } => {
                    let again = outcome == Outcome::Connect
                        && job.replay.is_some()
                        && (reused || seen.lane.budget.spend());
                    job.message = if again { job.replay() } else { None };
                    (outcome, reused, why)
                }
            };
            // The version's fault as soon as one instance failed that we had not told to stop.
            let ours = instance.is_cut_over()
                && failure.as_ref().is_none_or(|before| before.outcome == Outcome::Cutover);
            let outcome = if ours { Outcome::Cutover } else { outcome };
            failure = Some(Failure { outcome, why });
            if job.message.is_none() {
                break;
            }
            if reused {
                job.fresh = true;
            } else {
                tried.push(instance);
            }
        }
        let why = "the request cannot be sent again".to_owned();
        Served::Failed(failure.unwrap_or(Failure { outcome: Outcome::Connect, why }))
    }
}

impl Job {
    fn new(request: Request<Incoming>, entrance: Entrance, host: &HeaderValue) -> Self {
        let (mut parts, body) = request.into_parts();
        let body = UpBody::new(body);
        to_instance(&mut parts.headers, entrance.peer, entrance.https, host);
        let path = parts.uri.into_parts().path_and_query;
        let uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        let repeatable = matches!(body, UpBody::Empty)
            && (parts.method == Method::GET || parts.method == Method::HEAD);
        let replay = repeatable.then(|| (parts.method.clone(), uri.clone(), parts.headers.clone()));
        let watch = body.watch();
        let mut message = Request::new(body);
        *message.method_mut() = parts.method;
        *message.uri_mut() = uri;
        *message.headers_mut() = parts.headers;
        Self { message: Some(message), replay, watch, fresh: false }
    }

    fn replay(&self) -> Option<Request<UpBody>> {
        let (method, uri, headers) = self.replay.as_ref()?;
        let mut message = Request::new(UpBody::Empty);
        *message.method_mut() = method.clone();
        *message.uri_mut() = uri.clone();
        *message.headers_mut() = headers.clone();
        Some(message)
    }
}

/// An instance's answer; counted in `account` unless its request is counted elsewhere.
fn answer(seen: &Seen, head: Head, job: &Job, account: Option<&mut Account>) -> Response<DownBody> {
    let Head { response, under_way, conn, latency_us } = head;
    let (mut parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    let broken = match account {
        Some(account) => {
            let fault = seen.lane.is_fault(status);
            account.settle(Outcome::Head { status, fault, latency_us });
            account.broken(!fault)
        }
        None => Broken::nowhere(),
    };
    strip_hop_by_hop(&mut parts.headers);
    parts.version = HttpVersion::HTTP_11;
    Response::from_parts(
        parts,
        DownBody::instance(body, under_way, conn, broken, job.watch.clone()),
    )
}

fn ours(status: StatusCode, text: &str) -> Response<DownBody> {
    let mut response = Response::new(DownBody::ours(format!("tidegate: {text}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
